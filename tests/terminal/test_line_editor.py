"""What readline is told and asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_local.terminal.chat_view import Candidate
from llm_local.terminal.history_file import HistoryFile
from llm_local.terminal.line_editor import LineEditor


class FakeReadline(SimpleNamespace):
    """Remembers what it was given."""

    def __init__(self, doc: str = "GNU readline") -> None:
        super().__init__(bound=[], history=[], inserted=[], line="", completer=None, hook=None)
        self.__doc__ = doc

    def parse_and_bind(self, text: str) -> None:
        self.bound.append(text)

    def set_auto_history(self, wanted: bool) -> None:
        self.auto_history = wanted

    def set_completer_delims(self, delims: str) -> None:
        self.delims = delims

    def set_completer(self, completer: Any) -> None:
        self.completer = completer

    def set_startup_hook(self, hook: Any) -> None:
        self.hook = hook

    def get_line_buffer(self) -> str:
        return self.line

    def get_endidx(self) -> int:
        return len(self.line)

    def add_history(self, text: str) -> None:
        self.history.append(text)

    def insert_text(self, text: str) -> None:
        self.inserted.append(text)


def words(readline: FakeReadline, line: str) -> list[str]:
    """What Tab offers at the end of a line."""
    readline.line = line
    word = line.rpartition(" ")[2]
    found: list[str] = []
    while (one := readline.completer(word, len(found))) is not None:
        found.append(one)
    return found


@pytest.mark.parametrize(
    ("line", "candidate", "word"),
    [
        ("/he", Candidate("/help", 3), "/help"),
        ("/he", Candidate("help", 2), "/help"),
        ("/switch sta", Candidate("starter", 3), "starter"),
        ("/switch ", Candidate("starter", 0), "starter"),
        ("/read my fi", Candidate("my file.txt", 5), "file.txt"),
    ],
)
def test_a_candidate_becomes_the_word_that_readline_wants(
    monkeypatch: pytest.MonkeyPatch, line: str, candidate: Candidate, word: str
) -> None:
    readline = FakeReadline()
    editor = LineEditor(readline)  # type: ignore[arg-type]
    monkeypatch.setattr("builtins.input", lambda prompt: "")
    asked = []
    editor.read("> ", lambda text: asked.append(text) or [candidate])  # type: ignore[func-returns-value]
    assert words(readline, line) == [word]
    assert asked == [line]  # once, not once for each candidate


def test_text_to_begin_with_is_put_in_once(monkeypatch: pytest.MonkeyPatch) -> None:
    readline = FakeReadline()
    editor = LineEditor(readline)  # type: ignore[arg-type]
    monkeypatch.setattr("builtins.input", lambda prompt: (readline.hook(), prompt)[1])
    assert [editor.read("> ", initial="old"), editor.read(". ")] == ["> ", ". "]
    assert readline.inserted == ["old"]


def test_bytes_that_are_not_utf_8_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    editor = LineEditor(FakeReadline())  # type: ignore[arg-type]
    monkeypatch.setattr("builtins.input", lambda prompt: "a\udcffb")
    assert editor.read("> ") == "a\ufffdb"


def test_only_what_says_something_is_remembered() -> None:
    readline = FakeReadline()
    editor = LineEditor(readline)  # type: ignore[arg-type]
    for text in ("Hi", "", "  ", "a\nb"):
        editor.remember(text)
    assert readline.history == ["Hi", "a\nb"] and readline.auto_history is False


def test_what_was_typed_in_earlier_chats_comes_back(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "history"
    first = LineEditor(FakeReadline(), HistoryFile(path, told.append))  # type: ignore[arg-type]
    for text in ("Hi", "", "two\nlines"):
        first.remember(text)
    readline = FakeReadline()
    LineEditor(readline, HistoryFile(path, told.append))  # type: ignore[arg-type]
    assert readline.history == ["Hi", "two\nlines"] and told == []
    assert path.stat().st_mode & 0o077 == 0


def test_libedit_is_told_in_its_own_words() -> None:
    readline = FakeReadline("libedit readline")
    LineEditor(readline)  # type: ignore[arg-type]
    assert readline.bound == ["bind ^I rl_complete"]
