"""Answers side by side."""

from __future__ import annotations

import re

from llm_local.events import Delta, Finish, Timings, Usage
from llm_local.terminal.markdown_rows import RowMaker
from llm_local.terminal.rich_beside import column_rows
from terminal.rich_parts import completion, make_view

CODE = "```python\nx = 'a line of code that is too long'\n```"
ANSWER = f"Some words that are **longer** than the column.\n\n{CODE}\n\n漢字 \x1b[2J"


def test_no_row_of_a_column_is_wider_than_it_or_colors_beyond_it():
    rows = column_rows(ANSWER, 24, RowMaker("256"))
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in rows]
    assert plain == [
        *("Some words that are", "longer than the column."),
        *("", "python", "x = 'a line of code that", " is too long'", "", "漢字 \\x1b[2J"),
    ]


def test_answers_are_collected_and_drawn_in_columns():
    one = make_view(columns=80, lines=30)
    assert one.view.begin_beside(["small", "large\x1b[2J"])
    for text in ("漢字 one", "- two\n- three"):
        one.view.begin_reply()
        one.view.show(Delta("content", text, (1,)))
        one.view.show(Finish("stop", Usage(), Timings()))
        one.view.end_reply(completion(text=text))
    one.view.end_beside()
    assert one.rows() == [
        "",
        f"{'small':38} │ large\\x1b[2J",
        f"{'─' * 38} │ {'─' * 38}",
        f"漢字 one{' ' * 30} │ • two",
        f"{'':38} │ • three",
    ]
    assert not one.modes.is_silent


def test_answers_that_failed_or_never_came_leave_room_for_the_others():
    one = make_view(columns=120, lines=30)
    assert one.view.begin_beside(["a", "b", "c"])
    for answer in (None, completion(text="came")):
        one.view.begin_reply()
        one.view.end_reply(answer)
    one.view.end_beside()
    assert one.rows()[1].split() == ["a", "│", "b"] and one.rows()[3].split() == ["│", "came"]


def test_without_room_the_answers_are_drawn_one_after_the_other():
    assert not make_view(columns=60).view.begin_beside(["a", "b"])
