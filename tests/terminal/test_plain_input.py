"""What is said to a chat through a pipe, and by a terminal that edits lines itself."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llm_local.errors import InvalidRequest
from llm_local.terminal import plain_input
from llm_local.terminal.chat_signals import ChatSignals
from llm_local.terminal.chat_view import PromptContext
from llm_local.terminal.plain_input import PlainInput
from llm_local.terminal.streams import Messages
from llm_local.terminal.terminal_modes import TerminalModes
from terminal.fake_streams import FakeRaw

Piped = Callable[[bytes], PlainInput]
ANYTHING = PromptContext()


@pytest.fixture
def stderr() -> FakeRaw:
    return FakeRaw()


@pytest.fixture
def piped(stderr: FakeRaw) -> Iterator[Piped]:
    opened: list[int] = []

    def make(data: bytes) -> PlainInput:
        reader, writer = os.pipe()
        opened.append(reader)
        os.write(writer, data)
        os.close(writer)
        messages = Messages(stderr)
        return PlainInput(messages, ChatSignals(messages), TerminalModes(reader), descriptor=reader)

    yield make
    for descriptor in opened:
        os.close(descriptor)


def everything(said: PlainInput) -> list[str]:
    """All inputs, and for each that is refused its message."""
    found = []
    while True:
        try:
            found.append(said.read(ANYTHING))
        except InvalidRequest as error:
            found.append(f"refused: {error.message}")
        except EOFError:
            return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"Hi\nthere\n", ["Hi", "there"]),
        (b"no line end", ["no line end"]),
        (b"\n\nHi\n", ["", "", "Hi"]),
        (b"\xef\xbb\xbfHi\r\nyou\r\n", ["Hi", "you"]),
        ("Grüße\n你好\n".encode(), ["Grüße", "你好"]),
        (b'"""one\ntwo"""\nthree', ["one\ntwo", "three"]),
        (b"/system x\n//y\n", ["/system x", "//y"]),
    ],
)
def test_each_line_is_an_input(piped: Piped, stderr: FakeRaw, data: bytes, expected: list[str]) -> None:
    said = piped(data)
    assert everything(said) == expected
    assert not said.interactive and not said.can_edit
    assert stderr.text == ""  # no prompt
    with pytest.raises(EOFError):
        said.read(ANYTHING)


def test_an_open_input_at_the_end_is_taken_with_a_notice(piped: Piped, stderr: FakeRaw) -> None:
    assert everything(piped(b'"""one\ntwo')) == ["one\ntwo"]
    assert stderr.text == 'The input ended before """ closed it; it is taken as it is.\n'


def test_bytes_that_are_not_utf_8_are_replaced_with_one_notice(piped: Piped, stderr: FakeRaw) -> None:
    assert everything(piped(b"a\xffb\n\xfe\nc\n")) == ["a\ufffdb", "\ufffd", "c"]
    assert stderr.text == "stdin contains bytes that are not UTF-8; they are replaced by U+FFFD.\n"


def test_a_binary_file_ends_the_chat_at_its_first_nul(piped: Piped) -> None:
    assert everything(piped(b"Hi\n\x7fELF\0\0\nmore\n")) == [
        "Hi",
        "refused: stdin is no text, since it has a NUL character; nothing after it was read.",
    ]


def test_a_line_that_is_too_long_is_refused_and_the_next_one_read(
    piped: Piped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_input, "MAX_INPUT_BYTES", 50)
    monkeypatch.setattr(plain_input, "_CHUNK_BYTES", 16)
    refused = "refused: One input may have at most 50 bytes (50 B), but this has more."
    assert everything(piped(b"a" * 50 + b"\n" + b"b" * 200 + b"\nHi\n")) == ["a" * 50, refused, "Hi"]
    assert everything(piped(b"b" * 200)) == [refused]
    # nobody knows where one ends whose end may never come
    assert everything(piped(b'"""' + b"c" * 40 + b"\n" + b"d" * 40 + b"\n" + b'x"""\nHi\n')) == [refused]


def test_a_directory_is_no_input(stderr: FakeRaw) -> None:
    messages = Messages(stderr)
    descriptor = os.open("/", os.O_RDONLY)
    said = PlainInput(messages, ChatSignals(messages), TerminalModes(descriptor), descriptor=descriptor)
    assert everything(said) == ["refused: Cannot read stdin: Is a directory."]
    os.close(descriptor)


class Terminal:
    """A terminal that edits lines itself, and somebody who types on it."""

    def __init__(self, stderr: FakeRaw) -> None:
        self.master, self.slave = pty.openpty()
        messages = Messages(stderr)
        self.modes = TerminalModes(self.slave)
        self.input = PlainInput(messages, ChatSignals(messages), self.modes, descriptor=self.slave)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)


@pytest.fixture
def terminal(stderr: FakeRaw) -> Iterator[Terminal]:
    one = Terminal(stderr)
    yield one
    os.close(one.master)
    os.close(one.slave)


def test_a_terminal_is_prompted_line_by_line(terminal: Terminal, stderr: FakeRaw) -> None:
    terminal.type(b'Hi\n"""one\ntwo"""\n')
    assert terminal.input.interactive
    assert [terminal.input.read(ANYTHING) for _ in range(2)] == ["Hi", "one\ntwo"]
    assert stderr.text == "> > . "


def test_the_end_of_a_terminals_input_is_not_for_ever(terminal: Terminal, stderr: FakeRaw) -> None:
    terminal.type(b"\x04Hi\n")
    with pytest.raises(EOFError):
        terminal.input.read(ANYTHING)
    assert terminal.input.read(ANYTHING) == "Hi"
    assert stderr.text == "> \n> "


def test_a_line_that_the_terminal_cut_is_not_asked(terminal: Terminal) -> None:
    terminal.type(b"x" * 4000)
    terminal.type(b"x" * 1000 + b"\n")
    with pytest.raises(InvalidRequest, match="4095 bytes of a line"):
        terminal.input.read(ANYTHING)


def test_a_question_is_no_part_of_the_chat(terminal: Terminal, stderr: FakeRaw) -> None:
    terminal.type(b'"""y\n')
    assert terminal.input.ask("Really? ") == '"""y'
    assert stderr.text == "Really? "


def test_a_question_with_the_name_of_a_file_sends_none_of_its_controls(
    terminal: Terminal, stderr: FakeRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Editor:
        has_text = False

        def read(self, prompt: str, *rest: object) -> str:
            return f"asked: {prompt}"

    monkeypatch.setattr(plain_input, "may_use_escapes", lambda: True)
    messages = Messages(stderr)
    editor: Any = Editor()
    said = PlainInput(
        messages, ChatSignals(messages), terminal.modes, descriptor=terminal.slave, editor=lambda: editor
    )
    assert said.ask("Overwrite \x1b]52;c;eA==\x07? ") == "asked: Overwrite \\x1b]52;c;eA==\\x07? "


def test_the_terminal_is_given_back_as_it_was(terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal.slave)
    raw = termios.tcgetattr(terminal.slave)
    raw[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(terminal.slave, termios.TCSANOW, raw)
    terminal.input.close()
    terminal.input.close()
    assert termios.tcgetattr(terminal.slave) == before
