"""What was typed before, found by a few of its letters."""

from __future__ import annotations

import time

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from llm_local.terminal.history_search import HistoryCompleter, find_letters, one_line


def found(wanted, *newest_first):
    completer = HistoryCompleter(lambda: newest_first)
    return [one.text for one in completer.get_completions(Document(wanted), CompleteEvent())]


def test_letters_are_found_in_their_order_wherever_they_stand():
    entries = ("hello world", "explain transformers\nKV cache", "xpkv")
    assert found("xpkv", *entries) == ["xpkv", "explain transformers\nKV cache"]
    assert found("WRLD", *entries) == ["hello world"]
    assert found("dlrow", *entries) == []


def test_close_letters_come_first_then_newer_entries_and_each_once():
    assert found("ab", "a..b", "ab old", "ab older", "ab old") == ["ab old", "ab older", "a..b"]
    assert found("", "new", "old") == ["new", "old"]


def test_the_closest_place_of_the_letters_is_taken():
    assert find_letters("abc", "a..b..abc") == [6, 7, 8]
    assert find_letters("a b", "xaxb") == [1, 3]
    assert find_letters("z", "abc") is None and find_letters("", "abc") == []


@pytest.mark.parametrize("letter", ["İ", "ß"])
def test_letters_that_grow_when_made_small_do_not_move_the_others(letter):
    assert find_letters("x", f"{letter}{letter}x") == [2]


def test_an_entry_is_shown_in_one_harmless_line():
    assert one_line("a\nb\x1b[2J\tc") == "a⏎b\\x1b[2J c"


def test_many_long_entries_do_not_keep_anybody_waiting():
    begun = time.process_time()
    found("aaaaaaaaab", *(f"{'a' * 3000}{number}" for number in range(5000)))
    assert time.process_time() - begun < 20
