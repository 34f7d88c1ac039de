"""Long pastes: read in time in proportion to their length, shown as a mark, sent whole."""

from __future__ import annotations

import time

import pytest
from prompt_toolkit.keys import Keys

from llm_local.terminal.pastes import PasteParser, PasteShelf

BEGIN, END = "\x1b[200~", "\x1b[201~"


def keys_of(data: str, size: int):
    keys = []
    parser = PasteParser(keys.append)
    for start in range(0, len(data), size):
        parser.feed(data[start : start + size])
    return [(key.key, key.data) for key in keys]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_a_paste_is_one_key_wherever_it_is_cut(size):
    text = "some\x1b[2text\x1b[201 and \x1b more\n" * 3
    assert keys_of(f"a{BEGIN}{text}{END}b{BEGIN}{END}c", size) == [
        ("a", "a"),
        (Keys.BracketedPaste, text),
        ("b", "b"),
        (Keys.BracketedPaste, ""),
        ("c", "c"),
    ]


def test_five_megabytes_take_no_time_to_speak_of():
    begun = time.process_time()
    [(_, data)] = keys_of(BEGIN + "x" * (5 << 20) + END, 1024)
    assert len(data) == 5 << 20 and time.process_time() - begun < 2


def test_a_short_paste_stands_in_the_line_and_a_long_one_is_a_mark():
    shelf = PasteShelf()
    assert shelf.put("a\r\nb\rc") == "a\nb\nc"
    many, long = shelf.put("line\n" * 200), shelf.put("x" * 5000)
    assert (many, long) == (
        "[paste 1: 1,000 characters, 201 lines]",
        "[paste 2: 5,000 characters, 1 lines]",
    )
    line = f"before {many} between {long} after"
    assert shelf.expand(line) == f"before {'line' + chr(10)}{'line' + chr(10)}".replace(
        "line\nline\n", ""
    ) + ("line\n" * 200 + f" between {'x' * 5000} after")
    assert shelf.has_mark(line) and not shelf.has_mark("[paste 3: 1 characters]")


def test_only_the_last_pastes_are_kept():
    shelf = PasteShelf()
    marks = [shelf.put("x" * 5000) for _ in range(25)]
    assert [shelf.has_mark(mark) for mark in marks] == [False] * 5 + [True] * 20
