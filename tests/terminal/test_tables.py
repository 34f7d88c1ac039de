"""Tables for people and lines for programs."""

from __future__ import annotations

import io
import os
import pty
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_local.terminal import tables
from llm_local.terminal.streams import AnswerWriter
from llm_local.terminal.tables import _width, aligned, fitted, tab_lines, to_terminal, write_rows


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    text = aligned(("NAME", "SIZE", "NOTE"), [("a", "1", ""), ("longer", "23456", "x")], right=(1,))
    assert text == "NAME     SIZE  NOTE\na           1\nlonger  23456  x\n"


def test_no_rows_are_no_table_and_no_header_is_none() -> None:
    assert aligned(("NAME",), []) == ""
    assert aligned(("", ""), [("a", "1"), ("bcd", "2")]) == "a    1\nbcd  2\n"


def test_wide_and_combining_characters_stay_in_their_column() -> None:
    lines = aligned(("A", "B"), [("日本", "x"), ("e\u0301", "y"), ("abcd", "z")]).splitlines()
    assert lines == ["A     B", "日本  x", "e\u0301     y", "abcd  z"]


def test_what_fits_is_as_it_would_be_anyway() -> None:
    rows = [("a", "1", ""), ("longer", "23456", "x")]
    assert fitted(("NAME", "SIZE", "NOTE"), rows, 19) == aligned(("NAME", "SIZE", "NOTE"), rows)
    assert fitted(("NAME",), [], 10) == ""


def test_cells_that_are_too_wide_are_broken_between_words() -> None:
    text = fitted(("NAME", "WHAT"), [("/help", "Show all commands, or what one does."), ("/x", "y")], 28)
    assert text == "NAME   WHAT\n/help  Show all commands, or\n       what one does.\n/x     y\n"


@given(
    st.lists(st.tuples(*[st.text(st.sampled_from("ab 日e\u0301"), max_size=60)] * 3), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_no_table_is_wider_than_the_terminal_and_none_loses_a_character(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    text = fitted(("one", "two", "three"), rows, width)
    if width >= 30:  # below that the terminal breaks the lines
        assert all(_width(line) <= width for line in text.splitlines())
    for char in "ab日e\u0301":
        assert text.count(char) >= sum(cell.count(char) for row in rows for cell in row)


def test_a_narrow_terminal_gets_a_line_for_each_cell_that_has_something() -> None:
    text = fitted(("", "id", "title"), [("*", "12", "Tea"), ("", "34", "Rain and\nwind")], 16)
    assert text == "*\nid: 12\ntitle: Tea\n\nid: 34\ntitle: Rain and wind\n"


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
