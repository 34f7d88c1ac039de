"""Pastes that are too long to be edited: a short mark stands for each in the line, and its text is what is sent."""

from __future__ import annotations

from typing import Any, Final

from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding.key_processor import KeyPress
from prompt_toolkit.keys import Keys

__all__ = ["PasteParser", "PasteShelf"]

_END: Final = "\x1b[201~"
_MAX_INLINE_CHARS: Final = 4000
_MAX_INLINE_LINES: Final = 100
_MAX_KEPT: Final = 20


class PasteShelf:
    """Keeps the texts of long pastes while the chat runs, the last of them at least."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._count = 0

    def put(self, text: str) -> str:
        """What is to stand in the line for `text`: itself, or a mark."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        num_lines = text.count("\n") + 1
        if len(text) <= _MAX_INLINE_CHARS and num_lines <= _MAX_INLINE_LINES:
            return text
        self._count += 1
        mark = f"[paste {self._count}: {len(text):,} characters, {num_lines:,} lines]"
        self._texts[mark] = text
        while len(self._texts) > _MAX_KEPT:
            del self._texts[next(iter(self._texts))]
        return mark

    def expand(self, line: str) -> str:
        """A text with the pastes that its marks stand for."""
        for mark, text in self._texts.items():
            line = line.replace(mark, text)
        return line

    def has_mark(self, line: str) -> bool:
        """True where `expand` would change something."""
        return any(mark in line for mark in self._texts)


class PasteParser(Vt100Parser):
    """Reads keys; a paste of many chunks takes time in proportion to its length, and not to its square."""

    def __init__(self, feed_key_callback: Any) -> None:
        super().__init__(feed_key_callback)
        self._chunks: list[str] = []
        self._last = ""

    def feed(self, data: str) -> None:
        """The next characters."""
        if not self._in_bracketed_paste:
            super().feed(data)  # comes back here with what follows the beginning of a paste
            return
        # The end mark may be cut anywhere, so the last characters of the chunk before are looked at again.
        seen = self._last + data
        at = seen.find(_END)
        if at < 0:
            keep = len(_END) - 1
            self._chunks.append(seen[:-keep])
            self._last = seen[-keep:]
            return
        text = "".join([*self._chunks, seen[:at]])
        self._chunks, self._last = [], ""
        self._in_bracketed_paste = False
        self.feed_key_callback(KeyPress(Keys.BracketedPaste, text))
        self.feed(seen[at + len(_END) :])

    def reset(self, request: bool = False) -> None:
        """Forget what is not whole."""
        super().reset(request)
        self._chunks, self._last = [], ""
