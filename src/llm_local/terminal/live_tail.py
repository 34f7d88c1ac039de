"""Rows at the bottom of a terminal that are replaced in place, below rows that stay.

Between two paintings the cursor waits, hidden, at the *beginning* of the tail. A terminal that is resized may break
its lines anew or not, but it keeps the cursor at its character: so erasing from the cursor downwards always removes
the tail, all of it and nothing else, and no count of rows can be wrong. While the tail is drawn the terminal breaks no
line, so that a character it takes to be wider than we do cannot make a row two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Final

__all__ = ["LiveTail"]

_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"
_NO_WRAP: Final = "\x1b[?7l"
_WRAP: Final = "\x1b[?7h"
_ERASE_BELOW: Final = "\x1b[J"
_END: Final = "\r\n"


class LiveTail:
    """The one who writes while something is live. `write` sends all of a text at once; `size` is (columns, lines)."""

    def __init__(self, write: Callable[[str], None], size: Callable[[], tuple[int, int]]) -> None:
        self._write = write
        self._size = size
        self._rows: list[str] = []
        self._drawn_for: tuple[int, int] | None = None

    @property
    def is_live(self) -> bool:
        """True while the cursor is hidden and waits at a tail."""
        return self._drawn_for is not None

    def paint(self, done: Sequence[str], tail: Sequence[str]) -> None:
        """Put `done` where the tail was, for good, and a new tail below it: as much of its end as the screen holds."""
        size = self._size()
        rows = list(tail[-max(size[1] - 1, 1) :])
        if not done and rows == self._rows and size == self._drawn_for:
            return
        pieces = [] if self.is_live else [_HIDE_CURSOR]
        num_same = 0
        if done or size != self._drawn_for:
            pieces += [_ERASE_BELOW, *(row + _END for row in done)]
        else:
            pairs = zip(rows, self._rows, strict=False)
            num_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        pieces += self._tail(rows, num_same)
        self._rows, self._drawn_for = rows, size
        self._write("".join(pieces))

    def clear(self) -> None:
        """Remove the tail and show the cursor where it was."""
        if self.is_live:
            self._rows, self._drawn_for = [], None
            self._write("\r" + _ERASE_BELOW + _SHOW_CURSOR)

    def _tail(self, rows: Sequence[str], num_same: int) -> list[str]:
        """From the beginning of the tail: draw its rows but the first `num_same`, which are there, and come back."""
        if num_same == len(rows) == len(self._rows):
            return []
        down = min(num_same, max(len(rows) - 1, 0))  # the cursor does not leave the rows of the new tail
        pieces = [_NO_WRAP, _END * down, _ERASE_BELOW, _END.join(rows[down:]), _WRAP, "\r"]
        if len(rows) > 1:
            pieces.append(f"\x1b[{len(rows) - 1}A")
        return pieces
