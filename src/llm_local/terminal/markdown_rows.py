"""Leaves of Markdown as rows for a terminal: text with escape sequences of our own, and none of anybody else.

Nothing is fetched and nothing can be clicked: a link shows where it leads, an image its description and its address.
A row of code is a whole line, however long: the terminal breaks it, and who copies it gets it in one piece.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.cells import cell_len, chop_cells
from rich.color import ColorSystem
from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from llm_local.terminal.code_colors import CODE_STYLE
from llm_local.terminal.markdown_leaves import Leaf, inline_tokens
from llm_local.terminal.sanitize import show_controls

__all__ = ["MIN_WIDTH", "RowMaker", "inline_text"]

MIN_WIDTH: Final = 20
"""Rows are made for no less than this; a narrower terminal breaks them itself."""
_MIN_CELL_WIDTH: Final = 6
_RULE_WIDTH: Final = 40
# In the cell of a table there is no other way to break a line.
_BREAK: Final = re.compile(r"<br\s*/?>", re.IGNORECASE)
_COLOR_SYSTEMS: Final = {
    "standard": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
}
_PLAIN: Final = Style()
_DIM: Final = Style(dim=True)
_PREFIX: Final = Style(color="cyan")
_LINK_TARGET: Final = Style(dim=True, underline=True)
_CODE: Final = Style(color="bright_cyan", bold=True)
_HEADINGS: Final = (
    Style(color="bright_magenta", bold=True, underline=True),
    Style(color="bright_magenta", bold=True),
    Style(color="magenta", bold=True),
)
_LABEL: Final = CODE_STYLE + Style(dim=True, italic=True)
_INLINE: Final = {
    "em_open": Style(italic=True),
    "strong_open": Style(bold=True),
    "s_open": Style(strike=True),
    "link_open": Style(underline=True),
}


class RowMaker:
    """Draws leaves for one kind of terminal: `color_system` is None, "standard", "256" or "truecolor"."""

    def __init__(self, color_system: str | None) -> None:
        self._colors = _COLOR_SYSTEMS.get(color_system or "")
        self._console = Console(file=io.StringIO(), width=80, force_terminal=True, legacy_windows=False)
        # Colors what is right of the cursor without writing blanks, which somebody would copy.
        self._background = CODE_STYLE.render("\x1b[K", color_system=self._colors) if self._colors else ""

    def blank(self, leaf: Leaf, width: int) -> str:
        """The empty row before a leaf that stands apart."""
        return self.to_row([Segment(_cut(leaf.apart or "", width), _PREFIX)])

    def rows(self, leaf: Leaf, width: int) -> list[str]:
        """The rows of a leaf, but of code, in `width` columns; each without its line end."""
        first, rest = _cut(leaf.first, width), _cut(leaf.rest, width)
        inner = width - cell_len(first)
        if leaf.kind == "rule":
            drawn = [[Segment("─" * min(inner, _RULE_WIDTH), _DIM)]]
        elif leaf.kind == "table":
            drawn = self._table(leaf, inner)
        elif leaf.kind == "item":
            drawn = [[]]
        else:
            style = _HEADINGS[min(leaf.level, len(_HEADINGS)) - 1] if leaf.kind == "heading" else Style()
            drawn = self._wrapped(inline_text(leaf.text, style), inner)
        return [
            self.to_row([Segment(rest if number else first, _PREFIX), *segments])
            for number, segments in enumerate(drawn)
        ]

    def code_rows(self, leaf: Leaf, lines: Sequence[Text], width: int, *, is_start: bool) -> list[str]:
        """The rows of some lines of code, each as long as it is. `is_start`: they are the first of the leaf."""
        first, rest = _cut(leaf.first, width), _cut(leaf.rest, width)
        label = [Text(show_controls(leaf.language), _LABEL, end="")] if is_start and leaf.language else []
        if is_start and not (label or lines):
            return [self.to_row([Segment(first, _PREFIX)])]
        rows = []
        for number, line in enumerate([*label, *lines]):
            prefix = self.to_row([Segment(rest if number or not is_start else first, _PREFIX)])
            rows.append(prefix + self._background + self.text_row(line))
        return rows

    def folded(self, line: Text, leaf: Leaf, width: int) -> list[Text]:
        """A line of code in pieces that fit into `width` columns beside the prefix of `leaf`."""
        pieces = chop_cells(line.plain, max(width - cell_len(_cut(leaf.rest, width)), 2))
        offsets, position = [], 0
        for piece in pieces[:-1]:
            position += len(piece)
            offsets.append(position)
        return list(line.divide(offsets)) if offsets else [line]

    def to_row(self, segments: Iterable[Segment]) -> str:
        """Segments of one row as text with the sequences of their styles."""
        return "".join(
            (segment.style or Style()).render(show_controls(segment.text), color_system=self._colors)
            for segment in segments
            if segment.text
        )

    def text_row(self, text: Text) -> str:
        """A text without line ends as one row, however long."""
        return self.to_row(self._segments(text))

    def wrapped_rows(self, text: Text, width: int) -> list[str]:
        """A text as rows of at most `width` columns."""
        return [self.to_row(segments) for segments in self._wrapped(text, width)]

    def drawn_rows(self, drawn: RenderableType, width: int) -> list[str]:
        """Anything that rich can draw, as rows of at most `width` columns."""
        return [self.to_row(segments) for segments in self._lines(drawn, width)]

    def _segments(self, text: Text) -> list[Segment]:
        text.end = ""
        if not text.spans:  # rich forgets the style of such a text
            style = text.style if isinstance(text.style, Style) else self._console.get_style(text.style)
            return [Segment(text.plain, style)]
        return list(text.render(self._console))

    def _wrapped(self, text: Text, width: int) -> list[list[Segment]]:
        rows = []
        for line in text.wrap(self._console, width, overflow="fold"):
            line.rstrip()
            rows.append(self._segments(line))
        return rows or [[]]

    def _lines(self, drawn: RenderableType, width: int) -> list[list[Segment]]:
        options = self._console.options.update(width=width, max_width=width, min_width=0)
        return self._console.render_lines(drawn, options, pad=False)

    def _table(self, leaf: Leaf, width: int) -> list[list[Segment]]:
        header, *rows = [[inline_text(_BREAK.sub("\n", cell)) for cell in row] for row in leaf.cells]
        if len(header) * (_MIN_CELL_WIDTH + 3) + 1 > width:
            return self._stacked_table(header, rows, width)
        table = Table(box=box.ROUNDED, border_style=_DIM, header_style=Style(bold=True))
        for title, alignment in zip(header, leaf.alignments, strict=True):
            table.add_column(title, justify=alignment, min_width=_MIN_CELL_WIDTH, overflow="fold")
        for row in rows:
            table.add_row(*row)
        return self._lines(table, width)

    def _stacked_table(
        self, header: Sequence[Text], rows: Sequence[Sequence[Text]], width: int
    ) -> list[list[Segment]]:
        """A table without room for its columns: a line for each cell, led by the title of its column."""
        lines: list[list[Segment]] = []
        for row in rows or [[Text()] * len(header)]:
            if lines:
                lines.append([Segment("─" * min(width, _RULE_WIDTH), _DIM)])
            for title, cell in zip(header, row, strict=False):
                lead = title.copy()
                lead.stylize(Style(bold=True))
                lines += self._wrapped(Text.assemble(lead, ": ", cell), width)
        return lines


def inline_text(source: str, style: Style = _PLAIN) -> Text:
    """A text with its emphasis, code and links drawn. What a link or an image leads to is shown, and only shown."""
    text = Text(style=style, end="")
    styles: list[Style] = []
    targets: list[tuple[int, str]] = []  # of each open link, where its words begin, and its address
    for token in inline_tokens(source.expandtabs(4)):
        if token.type == "link_open":
            targets.append((len(text), str(token.attrs.get("href", ""))))
        if token.type in _INLINE:
            styles.append(_INLINE[token.type])
        elif token.type == "link_close":
            styles.pop()
            start, target = targets.pop()
            _append_target(text, target, text.plain[start:])
        elif token.type.endswith("_close"):
            styles.pop()
        elif token.type in ("softbreak", "hardbreak"):
            text.append("\n")
        elif token.type == "image":
            words = f"[image: {token.content}]" if token.content else "[image]"
            text.append(show_controls(words), Style.combine([_PLAIN, *styles, _DIM]))
            _append_target(text, str(token.attrs.get("src", "")), "")
        elif token.content:
            own = [_CODE] if token.type == "code_inline" else []
            text.append(
                show_controls(token.content).replace("\t", " "), Style.combine([_PLAIN, *styles, *own])
            )
    return text


def _append_target(text: Text, target: str, words: str) -> None:
    if target and target not in (words, f"mailto:{words}"):
        text.append(f" ({show_controls(target)})", _LINK_TARGET)


def _cut(prefix: str, width: int) -> str:
    """A prefix that leaves half of the width free: of one that is deep, what is nearest to the text."""
    return prefix if len(prefix) <= width // 2 else prefix[-(width // 2) :]
