"""A terminal that is drawn on: rows that stay, rows that change below them, and a sign of life while nothing comes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console, RenderableType
from rich.style import Style
from rich.text import Text

from llm_local.errors import StorageError
from llm_local.terminal.live_tail import LiveTail
from llm_local.terminal.markdown_rows import MIN_WIDTH, RowMaker
from llm_local.terminal.streams import STDOUT, AnswerWriter
from llm_local.terminal.terminal_modes import TerminalModes

__all__ = ["RichScreen", "terminal_size"]

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_S: Final = 0.1
# What is over sooner is not worth a sign.
_QUIET_S: Final = 0.25
_SPIN: Final = Style(color="cyan")


def terminal_size() -> tuple[int, int]:
    """Columns and lines; 80 and 24 where the terminal does not know."""
    try:
        columns, lines = os.get_terminal_size(STDOUT)
    except OSError:
        columns, lines = 0, 0
    return columns or 80, lines or 24


class RichScreen:
    """The one who draws. Methods may be called from one thread; the sign of life has another, behind a lock.

    `size` gives columns and lines. `color_system` is one that a `RowMaker` knows, or None for what the terminal has.

    Raises (from every method that draws):
        BrokenPipeError, StorageError: the terminal refused, most often because it hung up.
    """

    def __init__(
        self,
        answer: AnswerWriter,
        modes: TerminalModes,
        *,
        size: Callable[[], tuple[int, int]] = terminal_size,
        color_system: str | None = None,
    ) -> None:
        self._answer = answer
        self._modes = modes
        self._size = size
        self._tail = LiveTail(answer.draw, size)
        self._lock = threading.RLock()
        self._busy_rows: Callable[[], Sequence[Text]] | None = None
        self._spinner: threading.Thread | None = None
        self._wake = threading.Event()
        self.maker = RowMaker(color_system or _color_system())
        modes.uses_escapes = modes.has_drawing = True

    @property
    def width(self) -> int:
        """Columns to draw in, no fewer than rows are made for."""
        return max(self._size()[0], MIN_WIDTH)

    @property
    def is_narrow(self) -> bool:
        """True where there is no room for frames."""
        return self._size()[0] < 2 * MIN_WIDTH

    def paint(self, done: Sequence[str], tail: Sequence[str]) -> None:
        """Draw `done` for good, and `tail` below it until the next painting."""
        with self._lock:
            self._busy_rows = None
            if not self._tail.is_live:
                self._modes.silence()
            self._tail.paint(done, tail)

    def put(self, rows: Sequence[str]) -> None:
        """Draw rows for good, with nothing that changes below them."""
        with self._lock:
            self.clear()
            self._answer.draw("".join(f"{row}\r\n" for row in rows))

    def draw(self, drawn: RenderableType) -> None:
        """Draw for good what rich can draw. All text in it must be harmless."""
        self.put(self.maker.drawn_rows(drawn, self.width))

    def say(self, text: Text) -> None:
        """Draw a text for good, broken between words."""
        self.put(self.maker.wrapped_rows(text, self.width))

    def busy(self, rows: Callable[[], Sequence[Text]]) -> None:
        """Show that something goes on: `rows` are asked for again and again, and the first of them gets a spinner."""
        with self._lock:
            begins = self._busy_rows is None
            self._busy_rows = rows
            if begins:
                self._wake.set()
            if self._spinner is None:
                self._spinner = threading.Thread(target=self._spin, daemon=True, name="spinner")
                self._spinner.start()

    def clear(self) -> None:
        """Take away all that changes, and show again what is typed."""
        with self._lock:
            self._busy_rows = None
            if self._tail.is_live:
                self._tail.clear()
                self._modes.restore()

    def clear_all(self) -> None:
        """Empty the screen; the scrollback stays."""
        with self._lock:
            self.clear()
            self._answer.draw("\x1b[H\x1b[2J")

    def send(self, sequence: str) -> None:
        """Send a sequence that draws nothing."""
        with self._lock:
            self._answer.draw(sequence)

    def _spin(self) -> None:
        frame = 0
        while True:
            self._wake.wait()
            self._wake.clear()
            time.sleep(_QUIET_S)
            while self._draw_frame(_SPINNER[frame % len(_SPINNER)]):
                frame += 1
                time.sleep(_FRAME_S)

    def _draw_frame(self, sign: str) -> bool:
        """False when there is nothing more to wait for."""
        with self._lock, contextlib.suppress(OSError, StorageError):
            if self._busy_rows is None:
                return False
            rows = []
            for number, text in enumerate(self._busy_rows()):
                row = Text.assemble(("  " if number else f"{sign} ", _SPIN), text)
                row.truncate(self._size()[0], overflow="ellipsis")
                rows.append(self.maker.text_row(row))
            if not self._tail.is_live:
                self._modes.silence()
            self._tail.paint([], rows)
            return True
        return False


def _color_system() -> str | None:
    """What rich finds out about the terminal of this process."""
    return Console(force_terminal=True, legacy_windows=False).color_system
