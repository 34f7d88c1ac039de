"""The question whether a call may run, asked on a real pseudo-terminal; and what counts as no."""

from __future__ import annotations

import os
import pty
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_local.messages import ToolCall
from llm_local.terminal.streams import Messages
from llm_local.terminal.tool_question import ToolAnswer, ToolQuestion
from terminal.fake_streams import FakeRaw

CALL = ToolCall("abcdefghi", "read_file", {"path": "/etc/passwd"})
NO = ToolAnswer(False)


class Person:
    """Somebody at a terminal, who types once the question is there."""

    def __init__(self) -> None:
        self._main, side = pty.openpty()
        self.name = os.ttyname(side)
        self._side = side
        self.screen = ""

    def answers(self, keys: bytes, question: ToolQuestion, call: ToolCall = CALL) -> ToolAnswer:
        thread = threading.Thread(target=self._type, args=(keys,))
        thread.start()
        answer = question.ask(call, "mcp:files")
        thread.join()
        return answer

    def _type(self, keys: bytes) -> None:
        while "[y/a/N]" not in self.screen and select.select([self._main], [], [], 10)[0]:
            self.screen += os.read(self._main, 4096).decode()
        os.write(self._main, keys)

    def types_ahead(self, keys: bytes) -> None:
        os.write(self._main, keys)
        time.sleep(0.02)

    def leaves(self) -> None:
        for descriptor in (self._main, self._side):
            os.close(descriptor)


@pytest.fixture
def person() -> Iterator[Person]:
    one = Person()
    yield one
    one.leaves()


@pytest.mark.parametrize(
    ("keys", "answer"),
    [
        (b"y\n", ToolAnswer(True)),
        (b" YES \n", ToolAnswer(True)),
        (b"a\n", ToolAnswer(True, always=True)),
        (b"always\n", ToolAnswer(True, always=True)),
        (b"n\n", NO),
        (b"\n", NO),
        (b"yy\n", NO),
        (b"sure, y\n", NO),
        (b"\xff\n", NO),
        (b"\x04", NO),  # the end of input
    ],
)
def test_only_a_clear_yes_is_one(keys: bytes, answer: ToolAnswer, person: Person) -> None:
    stderr = FakeRaw()
    assert person.answers(keys, ToolQuestion(Messages(stderr), "ask", terminal=person.name)) == answer
    assert stderr.text == ""
    lines = person.screen.splitlines()
    assert lines[0] == "The model asks to run a tool: read_file (mcp:files)"
    assert '  "path": "/etc/passwd"' in lines
    assert lines[-1].startswith("Run it? y: yes, a: yes, and always read_file in this run, n or Enter: no.")


def test_what_was_typed_before_the_question_is_no_answer(person: Person) -> None:
    person.types_ahead(b"y\ny\n")
    assert person.answers(b"n\n", ToolQuestion(Messages(FakeRaw()), "ask", terminal=person.name)) == NO


def test_a_call_cannot_paint_the_question(person: Person) -> None:
    call = ToolCall("x", "a\nb\x1b[2J", {"\x1b]0;t\x07": "\r\nRun it? \u202e\x9b", "long": "x" * 9000})
    question = ToolQuestion(Messages(FakeRaw()), "ask", terminal=person.name)
    assert person.answers(b"y\n", question, call) == ToolAnswer(True)
    assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(person.screen)
    assert person.screen.count("\r\nRun it?") == 1
    assert "x" * 9000 in person.screen  # nobody allows what they cannot see


def test_without_a_terminal_the_answer_is_no_and_said_once(tmp_path: Path) -> None:
    stderr = FakeRaw()
    question = ToolQuestion(Messages(stderr), "ask", terminal=str(tmp_path / "none"))
    assert [question.ask(CALL, "function"), question.ask(CALL, "function")] == [NO, NO]
    assert stderr.text.count("\n") == 1 and "--approve all" in stderr.text


@pytest.mark.parametrize(("mode", "answer"), [("all", ToolAnswer(True)), ("none", NO)])
def test_who_decided_before_is_not_asked(mode: str, answer: ToolAnswer, tmp_path: Path) -> None:
    stderr = FakeRaw()
    question = ToolQuestion(Messages(stderr), mode, terminal=str(tmp_path / "none"))
    assert (question.ask(CALL, "function"), stderr.text) == (answer, "")


def test_a_signal_ends_the_waiting(person: Person) -> None:
    stopped: list[bool] = []
    timer = threading.Timer(0.05, stopped.append, [True])
    timer.start()
    question = ToolQuestion(Messages(FakeRaw()), "ask", stopped=lambda: bool(stopped), terminal=person.name)
    assert question.ask(CALL, "function") == NO
    timer.join()
