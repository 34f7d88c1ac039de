"""keep_alive in all its spellings, and times as Ollama writes them."""

from __future__ import annotations

from datetime import datetime

import pytest

from llm_local.api.ollama.durations import FOREVER, keep_alive_s, nanoseconds, timestamp
from llm_local.errors import InvalidRequest


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None), ("", None), (0, 0.0), (300, 300.0), (1.5, 1.5), (-1, -1.0), (-0.5, -1.0),
        ("5m", 300.0), ("1h30m", 5400.0), ("300ms", 0.3), ("90s", 90.0), ("0", 0.0), ("0s", 0.0), ("1.5h", 5400.0),
        ("300", 300.0), ("-1", -1.0), ("-1m", -1.0), ("+5m", 300.0), (".5s", 0.5), (" 5m ", 300.0),
        ("2000000h", -1.0), (1e12, -1.0),
    ],
)  # fmt: skip
def test_how_long_a_model_stays(given: float | str | None, seconds: float | None) -> None:
    assert keep_alive_s(given) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "text", ["soon", "5 m", "m", "5m5", "--1m", "1d", "1e5s", "٣m", "9" * 200, "5m\n5m", "nan"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        keep_alive_s(text)
    assert caught.value.param == "keep_alive"


def test_times() -> None:
    assert nanoseconds(0.25) == 250_000_000 and nanoseconds(-1) == 0
    text = timestamp(1_700_000_000_123_456_789)
    assert text == "2023-11-14T22:13:20.123456789Z"
    assert datetime.fromisoformat(FOREVER).year == 2318
