"""Editing a line on a terminal with Python's own readline: arrows, history, Tab, a paste of several lines whole."""

from __future__ import annotations

import contextlib
import io
import locale
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Final

from llm_local.terminal.chat_view import Candidate
from llm_local.terminal.history_file import HistoryFile
from llm_local.terminal.streams import STDOUT

__all__ = ["LineEditor", "load_line_editor"]

# Whatever the locale, what is typed and shown is UTF-8; a paste of several lines is one input, not as many turns.
_SETTINGS = (
    "set input-meta on",
    "set output-meta on",
    "set convert-meta off",
    "set enable-bracketed-paste on",
    "set echo-control-characters off",
    "set bell-style none",
    "tab: complete",
)
_MAX_RECALLED: Final = 1000
_UTF8_LOCALES: Final = ("C.UTF-8", "en_US.UTF-8", "UTF-8")


class LineEditor:
    """Reads lines from the terminal that stdin and stdout are."""

    def __init__(self, readline: ModuleType, history: HistoryFile | None = None) -> None:
        """`history` is what the arrow keys bring back from chats before this one, and what is added to it."""
        self._readline = readline
        self._history = history
        self._candidates: Sequence[Candidate] = ()
        self._complete: Callable[[str], Sequence[Candidate]] = lambda line: ()
        self._initial = ""
        if "libedit" in (readline.__doc__ or ""):
            readline.parse_and_bind("bind ^I rl_complete")
        else:
            for setting in _SETTINGS:
                readline.parse_and_bind(setting)
        readline.set_auto_history(False)
        readline.set_completer_delims(" ")
        readline.set_completer(self._candidate)
        readline.set_startup_hook(self._begin)
        for entry in [] if history is None else history.entries()[-_MAX_RECALLED:]:
            readline.add_history(entry)

    @property
    def has_text(self) -> bool:
        """True when something stands in the line. To be asked while it is read, as from a signal handler."""
        return bool(self._readline.get_line_buffer())

    def read(
        self, prompt: str, complete: Callable[[str], Sequence[Candidate]] = lambda line: (), initial: str = ""
    ) -> str:
        """The next line, without its end.

        Raises:
            EOFError: Ctrl-D in an empty line.
            KeyboardInterrupt: as the handler of SIGINT says.
        """
        self._complete, self._initial = complete, initial
        return input(prompt).encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def remember(self, text: str) -> None:
        """Have the arrow keys bring `text` back, also in later chats where there is a file for that."""
        if text.strip():
            self._readline.add_history(text)
            if self._history is not None:
                self._history.add(text)

    def end_line(self) -> None:
        """Go to the next line, when the reading was broken off."""
        with contextlib.suppress(OSError):
            os.write(STDOUT, b"\n")

    def _begin(self) -> None:
        if self._initial:
            self._readline.insert_text(self._initial)
            self._initial = ""

    def _candidate(self, word: str, state: int) -> str | None:
        """What readline asks again and again, with a growing `state`: the word that one candidate makes of `word`."""
        if state == 0:
            self._candidates = tuple(
                self._complete(self._readline.get_line_buffer()[: self._readline.get_endidx()])
            )
        if state >= len(self._candidates):
            return None
        one = self._candidates[state]
        # a candidate may replace less or more than the word, which begins at the last blank
        kept = word[: len(word) - one.replaces] if one.replaces < len(word) else ""
        return kept + (one.text if one.replaces <= len(word) else one.text[one.replaces - len(word) :])


def load_line_editor(history: HistoryFile | None = None) -> LineEditor | None:
    """One, or None where Python was built without, or where no locale of this system has UTF-8."""
    if not _speaks_utf8():
        return None
    try:
        # Late: only a person at a terminal has use for it, and its import touches the terminal.
        import readline
    except ImportError:
        return None
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # `input` decodes as it says
    return LineEditor(readline, history)


def _speaks_utf8() -> bool:
    """Make the locale of this process one with UTF-8, whatever its language; readline goes by the environment."""
    for name in ("", *_UTF8_LOCALES):
        try:
            locale.setlocale(locale.LC_CTYPE, name)
        except locale.Error:
            continue
        if locale.nl_langinfo(locale.CODESET).upper().replace("-", "") == "UTF8":
            if name:
                os.environ["LC_ALL"] = name
            return True
    return False
