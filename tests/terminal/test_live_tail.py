"""Rows that are replaced in place, and rows above them that are not touched."""

from __future__ import annotations

import random

import pytest

from llm_local.terminal.live_tail import LiveTail
from terminal.emulator import Emulator


def painted(columns: int = 20, lines: int = 6) -> tuple[Emulator, LiveTail]:
    emulator = Emulator(columns, lines)
    emulator.write("above\r\n")
    return emulator, LiveTail(emulator.write, emulator.size)


def test_a_tail_is_replaced_and_what_is_done_stays():
    emulator, tail = painted()
    tail.paint([], ["a", "b", "c"])
    tail.paint([], ["a", "x"])
    assert emulator.rows() == ["above", "a", "x"]
    tail.paint(["one", "two"], ["y"])
    tail.paint([], [])
    assert emulator.rows() == ["above", "one", "two"]
    tail.clear()
    emulator.write("next")
    assert emulator.rows() == ["above", "one", "two", "next"]


def test_many_paintings_leave_what_the_last_ones_say():
    chance = random.Random(7)
    emulator, tail = painted(12, 5)
    done, shown = ["above"], []
    for number in range(150):
        new = [f"d{number}-{one}" for one in range(chance.choice((0, 0, 1, 2, 9)))]
        # rows as wide as the screen, wider than the screen, of wide characters, empty
        shown = [
            chance.choice(("t", "", "f" * 12, "w" * 30, "漢" * 6, "漢" * 9))
            for _ in range(chance.randrange(8))
        ]
        tail.paint(new, shown)
        done += new
        expected = done + [row[:12] if row.isascii() else row[:6] for row in shown[-4:]]
        while not expected[-1]:
            expected.pop()
        # a wide character takes two cells, of which the second is empty
        assert [row.replace("w" * 11 + "w", "w" * 12) for row in emulator.rows()] == expected


def test_only_rows_that_changed_are_written():
    emulator, tail = painted()
    tail.paint([], ["a" * 20, "b" * 20, "c"])
    before = emulator.num_chars
    tail.paint([], ["a" * 20, "b" * 20, "cd"])
    assert emulator.num_chars - before < 35
    before = emulator.num_chars
    tail.paint([], ["a" * 20, "b" * 20, "cd"])
    assert emulator.num_chars == before


def test_the_cursor_is_hidden_while_something_is_live_and_shown_after():
    emulator, tail = painted()
    tail.paint([], ["a"])
    assert tail.is_live and emulator.screen.cursor.hidden
    tail.clear()
    assert not tail.is_live and not emulator.screen.cursor.hidden
    before = emulator.num_chars
    tail.clear()
    assert emulator.num_chars == before


@pytest.mark.parametrize("columns", [40, 12, 7])
def test_a_resize_between_paintings_costs_nothing_that_is_done(columns):
    emulator, tail = painted(20, 6)
    tail.paint(["done"], ["t" * 20, "u" * 20])
    emulator.screen.resize(6, columns)
    tail.paint([], ["t" * min(columns, 20), "v"])
    tail.paint(["more"], [])
    tail.clear()
    assert emulator.rows() == ["above", "done", "more"]


def test_the_cursor_waits_at_the_first_row_of_the_tail():
    """Whether a terminal breaks lines anew or not, it is there that erasing has to begin."""
    emulator, tail = painted()
    tail.paint(["done"], ["t" * 20, "u" * 20, "v"])
    assert (emulator.screen.cursor.y, emulator.screen.cursor.x) == (2, 0)
