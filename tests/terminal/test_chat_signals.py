"""What a signal does to a chat, by what the chat is doing; in this process, and once in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fakes import FakeClock
from llm_local.terminal.chat_signals import DEAF_S, ChatSignals, Ended
from llm_local.terminal.streams import Messages
from terminal.fake_streams import FakeRaw


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def signals(clock: FakeClock) -> Iterator[ChatSignals]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    one = ChatSignals(Messages(FakeRaw()), clock=clock)
    one.install()
    yield one
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_ends_the_reading_of_input(signals: ChatSignals) -> None:
    looked = []
    with pytest.raises(KeyboardInterrupt), signals.reading(lambda: looked.append(1)):
        signal.raise_signal(signal.SIGINT)
    assert looked == [1] and signals.code is None and not signals.cancelled


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_end_of_the_chat_ends_the_reading_too(signals: ChatSignals, number: int, code: int) -> None:
    with pytest.raises(Ended), signals.working(), signals.reading():
        signal.raise_signal(number)
    assert signals.code == code
    with pytest.raises(Ended), signals.reading():  # nobody is asked any more
        pytest.fail("read")


def test_ctrl_c_asks_the_work_to_stop_and_raises_nothing(signals: ChatSignals) -> None:
    asked = []
    with signals.working(lambda: asked.append("inner")):
        signal.raise_signal(signal.SIGINT)
        assert asked == ["inner"] and signals.cancelled
    assert signals.code is None
    with signals.working():
        assert not signals.cancelled  # new work


def test_what_is_asked_to_stop_between_two_things_stops_the_second(signals: ChatSignals) -> None:
    asked = []
    with signals.working():
        signal.raise_signal(signal.SIGINT)
        with signals.working(lambda: asked.append("answer")):
            assert asked == ["answer"]
        with signals.reading():
            pass
        with signals.working(lambda: asked.append("next answer")):
            assert asked == ["answer"]


def test_a_work_that_begins_while_somebody_reads_takes_ctrl_c(signals: ChatSignals) -> None:
    asked = []
    with signals.reading(), signals.working(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGINT)
    assert asked == [1]


def test_termination_asks_the_work_to_stop_and_remembers(signals: ChatSignals) -> None:
    asked = []
    with signals.working(lambda: asked.append(1)):
        signal.raise_signal(signal.SIGTERM)
        assert asked == [1] and signals.code == 143
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_work_that_is_deaf_is_left_at_a_later_ctrl_c(
    signals: ChatSignals, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with signals.working():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # impatience alone loses nothing
        assert left == []
        clock.advance(DEAF_S + 0.1)
        signal.raise_signal(signal.SIGINT)
    assert left == [130]


PROGRAM = """
import os, sys, time
from llm_local.terminal import chat_signals
from llm_local.terminal.streams import Messages
signals = chat_signals.ChatSignals(Messages.on_stderr(), lambda: os.write(2, b"restored\\n"))
signals.install()
chat_signals.GRACE_S = 0.2
if sys.argv[1] == "stuck":
    with signals.working():
        os.write(1, b"ready\\n")
        while True:
            time.sleep(0.01)
os.write(1, b"ready\\n")
time.sleep(20)
"""


@pytest.mark.parametrize(
    ("how", "number", "code", "word"),
    [
        ("starting", signal.SIGINT, 130, "interrupted"),
        ("starting", signal.SIGHUP, 129, "hung up"),
        ("stuck", signal.SIGTERM, 143, "terminated"),
    ],
)
def test_where_nothing_can_be_kept_the_process_ends(how: str, number: int, code: int, word: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(15) == code
        assert process.stderr.read() == f"restored\n{word}\n"
