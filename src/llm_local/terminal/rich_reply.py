"""An answer while it comes: reasoning dimmed or counted, the answer itself in Markdown."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rich.style import Style
from rich.text import Text

from llm_local.events import Delta
from llm_local.terminal.blocks import MarkdownStream, StreamRows
from llm_local.terminal.markdown_rows import RowMaker
from llm_local.terminal.rich_screen import RichScreen
from llm_local.terminal.sanitize import TerminalFilter

__all__ = ["DimmedStream", "RichReply"]

_MIN_INTERVAL_S: Final = 0.04
# Drawing takes at most one part in so many of the time: the model computes on the same processor.
_SHARE: Final = 12
_REASONING: Final = Style(dim=True, italic=True)


class DimmedStream:
    """Text as it is, dimmed; as a `MarkdownStream`, a line is done when it ends."""

    def __init__(self, maker: RowMaker) -> None:
        self._maker = maker
        self._filter = TerminalFilter()
        self._open = ""

    def feed(self, text: str) -> None:
        """The next piece."""
        self._open += self._filter.feed(text)

    def take(self, width: int) -> StreamRows:
        """What is to be drawn now."""
        whole, end, self._open = self._open.rpartition("\n")
        done = self._rows(whole, width) if end else []
        return StreamRows(done, self._rows(self._open, width) if self._open else [])

    def finish(self, width: int) -> list[str]:
        """The rows of all that is left."""
        self._open += self._filter.finish()
        text, self._open = self._open.rstrip("\n"), ""
        return self._rows(text, width) if text else []

    def _rows(self, text: str, width: int) -> list[str]:
        return self._maker.wrapped_rows(Text(text, _REASONING, tab_size=4), width)


class RichReply:
    """Draws one answer, which may be of several replies when tools are used. `clock` is monotonic, in seconds."""

    def __init__(
        self, screen: RichScreen, *, show_thinking: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen = screen
        self._show_thinking = show_thinking
        self._clock = clock
        self._stream: MarkdownStream | DimmedStream | None = None
        self._channel = ""
        self._num_thoughts = 0
        self._due_s = 0.0
        self._begun = False

    def show(self, delta: Delta) -> None:
        """The next piece, of either channel."""
        if delta.channel == "reasoning" and not self._show_thinking:
            self.finish()
            self._num_thoughts += len(delta.token_ids)
            self._screen.busy(lambda: [Text(f"thinking: {self._num_thoughts:,} tokens", "dim")])
            return
        if not delta.text:
            return
        if delta.channel != self._channel:
            self.finish()
        if self._stream is None:
            self._channel = delta.channel
            make = MarkdownStream if delta.channel == "content" else DimmedStream
            self._stream = make(self._screen.maker)
            if self._begun:
                self._screen.put([""])
            self._begun = True
        self._stream.feed(delta.text)
        if self._clock() >= self._due_s:
            self.draw()

    def draw(self) -> None:
        """Draw all that has come."""
        if self._stream is None:
            return
        begun_s = self._clock()
        rows = self._stream.take(self._screen.width)
        if rows.done or rows.tail:
            self._screen.paint(rows.done, rows.tail)
        now_s = self._clock()
        self._due_s = now_s + max(_MIN_INTERVAL_S, _SHARE * (now_s - begun_s))

    def finish(self) -> None:
        """The reply is over, or something else comes next: what is still open is drawn for good."""
        if self._stream is not None:
            self._screen.put(self._stream.finish(self._screen.width))
            self._stream, self._channel, self._due_s = None, "", 0.0
        self._num_thoughts = 0
