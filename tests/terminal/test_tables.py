"""Tables for people and lines for programs."""

from __future__ import annotations

import io
import os
import pty
from typing import Any

import pytest

from llm_local.terminal import tables
from llm_local.terminal.streams import AnswerWriter
from llm_local.terminal.tables import aligned, tab_lines, to_terminal, write_rows


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    text = aligned(("NAME", "SIZE", "NOTE"), [("a", "1", ""), ("longer", "23456", "x")], right=(1,))
    assert text == "NAME     SIZE  NOTE\na           1\nlonger  23456  x\n"


def test_no_rows_are_no_table_and_no_header_is_none() -> None:
    assert aligned(("NAME",), []) == ""
    assert aligned(("", ""), [("a", "1"), ("bcd", "2")]) == "a    1\nbcd  2\n"


def test_wide_and_combining_characters_stay_in_their_column() -> None:
    lines = aligned(("A", "B"), [("日本", "x"), ("e\u0301", "y"), ("abcd", "z")]).splitlines()
    assert lines == ["A     B", "日本  x", "e\u0301     y", "abcd  z"]


def test_a_cell_breaks_no_line_and_no_column() -> None:
    assert tab_lines([("a\tb\nc", "\x1b[31m"), ("", "x")]) == "a b c\t\\x1b[31m\n\tx\n"
    assert "\x1b" not in aligned(("A",), [("\x1b]52;c;eA==\x07",)])


def write(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> None:
    monkeypatch.setattr(tables, "STDOUT", descriptor)
    raw: Any = io.FileIO(descriptor, "w", closefd=False)
    write_rows(AnswerWriter(raw), ("NAME", "SIZE"), [("x", "1 kB")], [("x", "1000")], right=(1,))


def test_a_terminal_gets_a_table_and_a_pipe_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for opened, expected in ((pty.openpty, b"NAME  SIZE\r\nx     1 kB\r\n"), (os.pipe, b"x\t1000\n")):
        ours, theirs = opened()
        try:
            write(monkeypatch, theirs)
            assert to_terminal() is (opened is pty.openpty)
            assert os.read(ours, 1000) == expected
        finally:
            os.close(ours)
            os.close(theirs)
