"""Progress: updates on a terminal, few lines elsewhere, silence for what is quick."""

from __future__ import annotations

import pytest

from fakes import FakeClock
from llm_local.events import Progress
from llm_local.terminal.progress import ProgressReporter, format_bytes
from llm_local.terminal.streams import Messages
from terminal.fake_streams import FakeRaw

GB = 1_000_000_000


class Screen:
    """A reporter on a fake stream, with a clock that obeys."""

    def __init__(self, *, terminal: bool) -> None:
        self.raw = FakeRaw(terminal=terminal)
        self.clock = FakeClock()
        self.report = ProgressReporter(Messages(self.raw), clock=self.clock)

    def play(self, seconds: float, count: int, *, stage: str = "downloading", total: int | None = GB) -> None:
        """`count` even steps up to `total` in `seconds`, from 0 on."""
        for number in range(count + 1):
            self.report(Progress(stage, (total or GB) * number // count, total, "model.safetensors"))
            self.clock.advance(seconds / count)


@pytest.fixture(autouse=True)
def _capable_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def test_a_download_elsewhere_is_a_line_now_and_then() -> None:
    screen = Screen(terminal=False)
    screen.play(20, 2000)
    lines = screen.raw.text.splitlines()
    assert lines[0] == "downloading model.safetensors: 0% (0 B of 1.00 GB)"
    assert lines[-1].startswith("downloading model.safetensors: 100% (1.00 GB of 1.00 GB)")
    assert 4 <= len(lines) <= 7
    assert "50.0 MB/s" in lines[2] and "left" in lines[2]
    assert "\r" not in screen.raw.text


def test_a_quick_download_is_still_said_twice() -> None:
    screen = Screen(terminal=False)
    screen.play(0.1, 100)
    assert len(screen.raw.text.splitlines()) == 2


def test_a_terminal_is_updated_ten_times_a_second_at_most() -> None:
    screen = Screen(terminal=True)
    screen.play(2, 20_000)
    screen.report.close()
    shown = [part for part in screen.raw.text.split("\r") if part.strip()]
    assert 15 <= len(shown) <= 22
    assert shown[-1].startswith("downloading model.safetensors: 100%")
    assert screen.raw.text.endswith("\r") and "\n" not in screen.raw.text and "\x1b" not in screen.raw.text


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("stage", ["loading", "prefill"])
def test_what_is_quick_is_not_mentioned(terminal: bool, stage: str) -> None:
    screen = Screen(terminal=terminal)
    screen.play(0.3, 100, stage=stage)
    assert screen.raw.text == ""


def test_a_slow_load_is_shown() -> None:
    screen = Screen(terminal=False)
    screen.play(12, 100, stage="loading")
    assert [line.split(":")[0] for line in screen.raw.text.splitlines()] == ["loading model.safetensors"] * 3
    live = Screen(terminal=True)
    live.play(2, 100, stage="prefill", total=5000)
    assert "reading the prompt model.safetensors: 100% (5000 of 5000)" in live.raw.text
    assert len(live.raw.text.split("reading")) > 10


@pytest.mark.parametrize("terminal", [True, False])
def test_the_end_of_what_nobody_was_told_of_is_not_told(terminal: bool) -> None:
    """A slow load that says nothing in between."""
    screen = Screen(terminal=terminal)
    screen.play(60, 1, stage="loading")
    assert screen.raw.text == ""


def test_the_end_is_said_once() -> None:
    screen = Screen(terminal=False)
    for _ in range(3):
        screen.report(Progress("downloading", GB, GB, "a"))
        screen.clock.advance(60)
    assert len(screen.raw.text.splitlines()) == 1


def test_an_unknown_total_shows_what_came() -> None:
    screen = Screen(terminal=False)
    screen.play(6, 10, total=None)
    assert screen.raw.text.splitlines()[0] == "downloading model.safetensors: 0 B"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1500, "1.50 kB"),
        (999_999, "1.00 MB"),
        (12_345_678, "12.3 MB"),
    ],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text
