"""Ollama's times: durations as Go writes them, nanoseconds, and moments. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from llm_local.errors import InvalidRequest

__all__ = ["FOREVER", "keep_alive_s", "nanoseconds", "timestamp"]

FOREVER: Final = "2318-01-01T00:00:00Z"
"""When a model goes that stays: what Ollama says of it."""

_UNITS_S: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_NUMBER: Final = r"[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}"
_PLAIN: Final = re.compile(rf"([+-]?)({_NUMBER})")
_PART: Final = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)")
_GO: Final = re.compile(rf"([+-]?)((?:(?:{_NUMBER})(?:ns|us|µs|μs|ms|s|m|h))+)")
_MAX_TEXT: Final = 100
_FOR_GOOD_S: Final = 100 * 365 * 86_400.0


def keep_alive_s(given: float | str | None) -> float | None:
    """Seconds that a model stays; -1 for good, which a hundred years are too. None where nothing is said.

    Raises:
        InvalidRequest: it is no duration.
    """
    if given is None or given == "":
        return None
    seconds = _seconds(given) if isinstance(given, str) else float(given)
    if seconds is None:
        raise InvalidRequest(
            "keep_alive is no duration.",
            'Give seconds, or a text such as "5m" or "1h30m".',
            param="keep_alive",
        )
    return -1.0 if seconds < 0 or seconds > _FOR_GOOD_S else seconds


def nanoseconds(seconds: float) -> int:
    """Seconds as Ollama counts them."""
    return max(0, round(seconds * 1e9))


def timestamp(time_ns: int) -> str:
    """A moment, given in nanoseconds since 1970, as RFC 3339."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _seconds(text: str) -> float | None:
    text = text.strip()
    if len(text) > _MAX_TEXT:
        return None
    if plain := _PLAIN.fullmatch(text):  # Go wants a unit, but people leave it out
        found = float(plain[2])
    elif (go := _GO.fullmatch(text)) is not None:
        plain = go
        found = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(go[2]))
    else:
        return None
    return -found if plain[1] == "-" else found
