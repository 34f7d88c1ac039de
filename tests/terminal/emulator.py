"""A screen with scrollback that eats what is written to it."""

from __future__ import annotations

import pyte


class Emulator:
    """`columns` x `lines`; `rows()` is all that was ever shown and not erased."""

    def __init__(self, columns: int, lines: int) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=100_000)
        self._stream = pyte.Stream(self.screen)
        self.num_chars = 0

    def write(self, text: str) -> None:
        self.num_chars += len(text)
        self._stream.feed(text)

    def size(self) -> tuple[int, int]:
        return self.screen.columns, self.screen.lines

    def rows(self) -> list[str]:
        """Scrollback and screen, without blanks at the ends of rows, nor empty rows at the end."""
        above = [self._text(line) for line in self.screen.history.top]
        rows = above + [line.rstrip() for line in self.screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _text(self, line) -> str:
        return "".join(line[column].data for column in range(self.screen.columns)).rstrip()
