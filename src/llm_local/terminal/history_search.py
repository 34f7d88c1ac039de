"""Ctrl+R: what was typed before, found by a few letters of it in their order, wherever they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples

from llm_local.terminal.sanitize import show_controls

__all__ = ["HistoryCompleter", "find_letters", "one_line"]

_MAX_ENTRIES: Final = 5000
_MAX_SHOWN: Final = 50
_MAX_LINE_CHARS: Final = 300
_BREAK: Final = "⏎"


class HistoryCompleter(Completer):
    """Completes the whole text to entries that have its letters. `newest_first` gives the entries."""

    def __init__(self, newest_first: Callable[[], Sequence[str]]) -> None:
        self._newest_first = newest_first

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The best first: letters close together, then newer ones. The text of a completion is a whole entry."""
        wanted = document.text
        found = []
        for age, entry in enumerate(dict.fromkeys(self._newest_first()[:_MAX_ENTRIES])):
            line = one_line(entry)
            places = find_letters(wanted, line)
            if places is not None:
                spread = places[-1] - places[0] if places else 0
                found.append((spread, age, entry, line, places))
        found.sort(key=lambda one: one[:2])
        for _, _, entry, line, places in found[:_MAX_SHOWN]:
            yield Completion(entry, start_position=-len(wanted), display=_marked(line, places))


def one_line(entry: str) -> str:
    """An entry as a line to be shown: line ends as a sign, controls visible, and not too long."""
    return show_controls(entry[:_MAX_LINE_CHARS].replace("\n", _BREAK).replace("\t", " "))


def find_letters(wanted: str, line: str) -> list[int] | None:
    """Where the letters of `wanted`, without blanks, stand in `line` in their order, as close as can be; or None."""
    letters, text = "".join(wanted.split()).lower(), line.lower()
    if len(text) != len(line):
        text = line  # a few letters become two when they are made small, and the places would not fit
    best: list[int] | None = [] if not letters else None
    start = text.find(letters[0]) if letters else -1
    while start >= 0:
        places = [start]
        for letter in letters[1:]:
            at = text.find(letter, places[-1] + 1)
            if at < 0:
                return best  # nor can it follow a later start
            places.append(at)
        if best is None or places[-1] - places[0] < best[-1] - best[0]:
            best = places
        start = text.find(letters[0], start + 1)
    return best


def _marked(line: str, places: Sequence[int]) -> StyleAndTextTuples:
    marked = set(places)
    return [("class:fuzzymatch.inside" if at in marked else "", char) for at, char in enumerate(line)]
