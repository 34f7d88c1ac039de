"""No control character of foreign origin reaches a terminal, wherever the text is cut."""

from __future__ import annotations

import itertools
import re

import pytest

from llm_local.terminal.sanitize import MAX_LINE_CHARS, TerminalFilter, replace_surrogates, sanitize_line

DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

ATTACKS = [
    "\x1b]52;c;cm0gLXJmIH4=\x07",  # writes the clipboard
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",  # hides a link
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H",
    "\x1b[31mred\x1b[0m",
    "\x1b[?2026h",
    "\x1bP+q544e\x1b\\",
    "\x1b_apc\x1b\\",
    "\x9b31mC1\x9c",
    "\x90dcs\x9c",
    "bell\x07",
    "safe\rEVIL",
    "back\x08\x08space",
    "\x7f\x00\x0b\x0c\x0e\x0f",
    "abc\u202egnp.exe",
    "\u2066isolate\u2069",
    "half\ud800surrogate",
]


def _filtered(*chunks: str) -> str:
    terminal = TerminalFilter()
    return "".join([*map(terminal.feed, chunks), terminal.finish()])


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_dangerous_passes_and_any_split_gives_the_same(text: str) -> None:
    whole = _filtered(text)
    assert not DANGEROUS.search(whole)
    for cut in range(len(text) + 1):
        assert _filtered(text[:cut], text[cut:]) == whole
    assert _filtered(*text) == whole


def test_what_is_removed_is_shown() -> None:
    assert _filtered("\x1b[31m\x9b\u202e\x7f") == r"\x1b[31m\x9b\u202e\x7f"


@pytest.mark.parametrize("chunks", list(itertools.product(["a\r", "\r", "\n", "\r\nb", ""], repeat=3)))
def test_line_ends_in_any_cut(chunks: tuple[str, ...]) -> None:
    expected = "".join(chunks).replace("\r\n", "\n").replace("\r", r"\x0d")
    assert _filtered(*chunks) == expected


def test_ordinary_text_passes_unchanged() -> None:
    text = "Tab\there.\nGrüße, 你好, مرحبا, שלום, 👩‍👩‍👧 e\u0301 \u200e\u200d"
    assert _filtered(text) == text


def test_a_line_is_one_line() -> None:
    assert sanitize_line(" a\r\n\tb\u2028c\x85d\x1b[2J ") == r"a b c d\x1b[2J"
    assert len(sanitize_line("x" * (MAX_LINE_CHARS + 1))) == MAX_LINE_CHARS
    assert sanitize_line("x" * MAX_LINE_CHARS) == "x" * MAX_LINE_CHARS


def test_surrogates_become_replacement_characters() -> None:
    assert replace_surrogates("a\udcffb\ud83d") == "a\ufffdb\ufffd"
    assert replace_surrogates("😀") == "😀"
