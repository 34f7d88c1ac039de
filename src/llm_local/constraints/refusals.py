"""How a constraint that cannot be kept is refused: in one sentence that names what and where."""

from __future__ import annotations

import re
from typing import Final

from llm_local.errors import InvalidRequest

__all__ = ["MAX_REPEAT", "check_repeats", "first_line", "refusal"]

# More repetitions than any reply has tokens for; the library would unroll some of them.
MAX_REPEAT: Final = 10_000

_REPEATS: Final = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}|~\s*(\d+)(?:\s*\.\.\s*(\d+))?")
_MAX_REASON: Final = 300


def refusal(message: str, hint: str = "") -> InvalidRequest:
    """The error for a constraint that is not taken, ready to raise."""
    return InvalidRequest(message, hint, param="constraint")


def check_repeats(text: str, what: str) -> None:
    """Refuse `x{20000}` and the like in a regex or grammar called `what` in the message.

    Raises:
        InvalidRequest: a count above MAX_REPEAT.
    """
    for match in _REPEATS.finditer(text):
        # by length first, because Python refuses to read numbers of thousands of digits
        if any(len(count) > 9 or int(count) > MAX_REPEAT for count in match.groups() if count):
            raise refusal(
                f"{what} repeats something {match[0][:20]} times, at most {MAX_REPEAT} are allowed.",
                "Use + or * for what has no bound.",
            )


def first_line(reason: str) -> str:
    """The library's reason, short enough for one line, without the layout."""
    lines = (line.strip() for line in reason.replace("<non-verbose/>", "").splitlines())
    return " ".join(line for line in lines if line)[:_MAX_REASON].rstrip(".")
