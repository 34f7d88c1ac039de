"""An answer in Markdown, drawn while it comes: what is finished is drawn once, and only the last piece is drawn again.

Only the last leaf of a source can still change, and of code only the line that is being written. So whatever stands
before is *done*: it goes to the scrollback and is never touched again, however long the answer, and a block of code
streams line by line. The rest is the *tail*, which somebody draws at the bottom and replaces (`live_tail`).

Pieces of text in, rows out; nothing is written here. The rows that are done, one after the other, are those of the
whole text drawn at once, whatever way it was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from llm_local.terminal.code_colors import CodeColors
from llm_local.terminal.markdown_leaves import Leaf, parse_leaves
from llm_local.terminal.markdown_rows import MIN_WIDTH, RowMaker
from llm_local.terminal.sanitize import TerminalFilter

__all__ = ["MarkdownStream", "StreamRows", "markdown_rows"]


@dataclass(frozen=True, slots=True)
class StreamRows:
    """Rows of a terminal, without line ends. `done` are new and final; `tail` is all that may still change."""

    done: list[str]
    tail: list[str]


class MarkdownStream:
    """One text, from its first piece to `finish`. `width` is in columns and may differ each time."""

    def __init__(self, maker: RowMaker) -> None:
        self._maker = maker
        self._filter = TerminalFilter()
        self._open = ""  # the source from the outermost block on that is not finished
        self._num_seen = 0  # how many characters of it, whole lines, were looked at
        self._num_done = 0  # how many of its leaves are done
        self._code: CodeColors | None = None  # of the first leaf that is not done, once its rows have begun
        self._num_code_lines = 0  # how many of the lines that this leaf has in `_open` are done
        self._has_rows = False

    def feed(self, text: str) -> None:
        """The next piece."""
        self._open += self._filter.feed(text)

    def take(self, width: int) -> StreamRows:
        """What is to be drawn now."""
        width = max(width, MIN_WIDTH)
        return StreamRows(self._finished_rows(width), self._tail_rows(width))

    def finish(self, width: int) -> list[str]:
        """The rows of all that is left: the text is over."""
        width = max(width, MIN_WIDTH)
        self._open += self._filter.finish()
        if not self._open.endswith("\n"):
            self._open += "\n"
        rows = self._finished_rows(width)
        for leaf in parse_leaves(self._open)[self._num_done :]:
            rows += self._leaf_rows(leaf, width)
        self._open, self._num_seen, self._num_done = "", 0, 0
        return rows

    def _finished_rows(self, width: int) -> list[str]:
        """Whole lines alone decide: a line that is still being written may become anything."""
        end = self._open.rfind("\n") + 1
        if end == self._num_seen:
            return []
        self._num_seen = end
        leaves = parse_leaves(self._open[:end])
        rows: list[str] = []
        for leaf in leaves[self._num_done : -1]:
            rows += self._leaf_rows(leaf, width)
            self._num_done += 1
        if leaves and leaves[-1].kind == "code" and leaves[-1].text:
            rows += self._code_rows(leaves[-1], width)
        self._drop(leaves)
        return rows

    def _drop(self, leaves: Sequence[Leaf]) -> None:
        """Forget the source of what is done, as far as nothing that comes depends on it."""
        lines = self._open.split("\n")
        if not leaves:
            del lines[:-1]
        else:
            last = leaves[-1]
            if last.is_fence and self._num_code_lines:
                del lines[last.start + 1 : last.start + 1 + self._num_code_lines]
                self._num_code_lines = 0
            del lines[: last.top]
            self._num_done -= sum(leaf.top != last.top for leaf in leaves)
        self._open = "\n".join(lines)
        self._num_seen = self._open.rfind("\n") + 1

    def _leaf_rows(self, leaf: Leaf, width: int) -> list[str]:
        """The rows of a leaf that is finished, or those of it that are not done."""
        if leaf.kind == "code":
            rows = self._code_rows(leaf, width)
            self._code, self._num_code_lines = None, 0
            return rows
        rows = self._blank(leaf, width) + self._maker.rows(leaf, width)
        self._has_rows = True
        return rows

    def _code_rows(self, leaf: Leaf, width: int) -> list[str]:
        is_start = self._code is None
        if self._code is None:
            self._code = CodeColors(leaf.language)
        lines = [self._code.add(line) for line in _code_lines(leaf)[self._num_code_lines :]]
        self._num_code_lines += len(lines)
        rows = self._blank(leaf, width) if is_start else []
        rows += self._maker.code_rows(leaf, lines, width, is_start=is_start)
        self._has_rows = True
        return rows

    def _blank(self, leaf: Leaf, width: int) -> list[str]:
        return [self._maker.blank(leaf, width)] if leaf.apart is not None and self._has_rows else []

    def _tail_rows(self, width: int) -> list[str]:
        source = self._open
        last_line = source[self._num_seen :].strip()
        if last_line and not last_line.strip("`~"):
            source = source[: self._num_seen]  # most likely the beginning of a fence, or of its end
        rows: list[str] = []
        for number, leaf in enumerate(parse_leaves(source)[self._num_done :]):
            if leaf.kind == "code":
                rows += self._code_tail(leaf, width, is_first=number == 0)
            else:
                if leaf.apart is not None and (self._has_rows or rows):
                    rows.append(self._maker.blank(leaf, width))
                rows += self._maker.rows(leaf, width)
        return rows

    def _code_tail(self, leaf: Leaf, width: int, *, is_first: bool) -> list[str]:
        """The lines of code that are not done; the last of them may still grow."""
        begun = is_first and self._code is not None
        colors = self._code if begun and self._code else CodeColors(leaf.language)
        lines: list[Text] = []
        for line in _code_lines(leaf)[self._num_code_lines if is_first else 0 :]:
            lines += self._maker.folded(colors.peek(line), leaf, width)
        rows = [] if begun else self._blank(leaf, width)
        return rows + self._maker.code_rows(leaf, lines, width, is_start=not begun)


def markdown_rows(text: str, width: int, maker: RowMaker) -> list[str]:
    """A whole text as rows."""
    stream = MarkdownStream(maker)
    stream.feed(text)
    return stream.finish(width)


def _code_lines(leaf: Leaf) -> list[str]:
    lines = leaf.text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines
