"""How far a pull is, shown on a terminal and elsewhere."""

from __future__ import annotations

from fakes import FakeClock
from llm_local.store.pulling import FileProgress
from llm_local.terminal.pull_progress import PullProgress
from llm_local.terminal.streams import Messages
from terminal.fake_streams import FakeRaw

MB = 10**6


def event(done: int, total: int | None = 100 * MB, *, before: int = 0, note: str = "") -> FileProgress:
    size = None if total is None else total - before
    return FileProgress("model.safetensors", done, size, 2, 5, before + done, total, note)


def reported(clock: FakeClock, *, terminal: bool) -> tuple[PullProgress, FakeRaw]:
    said = FakeRaw(terminal=terminal)
    return PullProgress(Messages(said), clock=clock), said


def test_percent_lines_now_and_then_where_it_is_no_terminal() -> None:
    clock = FakeClock()
    progress, said = reported(clock, terminal=False)
    for second in range(21):
        progress(event(5 * MB * second))
        clock.advance(1)
    lines = said.text.splitlines()
    assert [line.split("%")[0] for line in lines] == ["0", "25", "50", "75", "100"]
    assert lines[1] == ("25%, 25.0 MB of 100 MB, 5.00 MB/s, 15 s left [file 2 of 5: model.safetensors 25%]")
    assert "left" not in lines[-1] and "\r" not in said.text


def test_what_an_earlier_run_brought_is_no_speed() -> None:
    clock = FakeClock()
    progress, said = reported(clock, terminal=False)
    progress(event(80 * MB))
    clock.advance(6)
    progress(event(83 * MB))
    assert "500 kB/s, 34 s left" in said.text.splitlines()[-1]


def test_a_file_that_is_begun_again_has_no_negative_speed() -> None:
    clock = FakeClock()
    progress, said = reported(clock, terminal=False)
    for done in (50, 0, 10):
        clock.advance(6)
        progress(event(done * MB))
    assert "/s" not in said.text.splitlines()[1] and "1.67 MB/s" in said.text.splitlines()[2]


def test_a_reason_to_wait_is_told_at_once() -> None:
    progress, said = reported(FakeClock(), terminal=False)
    progress(event(0))
    progress(event(0, note="it answered 503; trying again in 3 s"))
    assert said.text.splitlines()[1] == "model.safetensors: it answered 503; trying again in 3 s"


def test_one_line_is_replaced_on_a_terminal_and_goes_away(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    clock = FakeClock()
    progress, said = reported(clock, terminal=True)
    for done in range(101):
        progress(event(done * MB))
        clock.advance(0.01)
    assert "\n" not in said.text and "\x1b" not in said.text
    assert said.text.count("model.safetensors") < 20
    assert "100%, 100 MB of 100 MB" in said.text
    progress.close()
    assert said.text.endswith(" \r")


def test_a_size_that_is_not_told() -> None:
    progress, said = reported(FakeClock(), terminal=False)
    progress(event(5 * MB, None))
    assert said.text == "downloading, 5.00 MB [file 2 of 5: model.safetensors]\n"
