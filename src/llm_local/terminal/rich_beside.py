"""Several answers side by side, each in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from llm_local.events import Completion
from llm_local.terminal.code_colors import CodeColors
from llm_local.terminal.markdown_leaves import parse_leaves
from llm_local.terminal.markdown_rows import RowMaker
from llm_local.terminal.sanitize import TerminalFilter, sanitize_line

__all__ = ["LEAST_COLUMN_WIDTH", "AnswersBeside", "column_rows"]

LEAST_COLUMN_WIDTH: Final = 36
_GAP: Final = " │ "
_SEQUENCE: Final = re.compile(r"\x1b\[[0-9;]*m")
_TITLE: Final = Style(bold=True)


class AnswersBeside:
    """Collects answers, in the order of their `titles`, and draws them together."""

    def __init__(self, titles: Sequence[str]) -> None:
        self._titles = [sanitize_line(title) for title in titles]
        self._answers: list[str] = []
        self._num_tokens = 0

    def count(self, num_tokens: int) -> None:
        """So many tokens more came of the answer that is coming."""
        self._num_tokens += num_tokens

    def add(self, completion: Completion | None) -> None:
        """The answer that was coming is over."""
        self._answers.append("" if completion is None else completion.text)
        self._num_tokens = 0

    def state(self) -> Sequence[Text]:
        """What goes on just now, for a spinner."""
        at = min(len(self._answers), len(self._titles) - 1)
        return [Text(f"{at + 1} of {len(self._titles)}: {self._titles[at]}  {self._num_tokens:,} tokens")]

    def rows(self, maker: RowMaker, width: int) -> list[str]:
        """All answers that came, in columns of one width."""
        if not self._answers:
            return []
        wide = (width - len(_GAP) * (len(self._answers) - 1)) // len(self._answers)
        titles = [maker.wrapped_rows(Text(title, _TITLE), wide) for title in self._titles]
        columns = [
            [*title, "─" * wide, *column_rows(text, wide, maker)]
            for title, text in zip(titles, self._answers, strict=False)
        ]
        return [
            _GAP.join(_padded(cell, wide) for cell in row).rstrip()
            for row in zip_longest(*columns, fillvalue="")
        ]


def column_rows(text: str, width: int, maker: RowMaker) -> list[str]:
    """Markdown as rows of which none is wider than `width`, nor colors what is right of it."""
    shown = TerminalFilter()
    rows: list[str] = []
    for leaf in parse_leaves(shown.feed(text) + shown.finish()):
        if leaf.apart is not None and rows:
            rows.append(maker.blank(leaf, width))
        if leaf.kind != "code":
            rows += maker.rows(leaf, width)
            continue
        colors = CodeColors(leaf.language)
        lines = [colors.add(line) for line in leaf.text.removesuffix("\n").split("\n")]
        folded = [piece for line in lines for piece in maker.folded(line, leaf, width)]
        rows += (row.replace("\x1b[K", "") for row in maker.code_rows(leaf, folded, width, is_start=True))
    return rows


def _padded(row: str, width: int) -> str:
    return row + " " * (width - cell_len(_SEQUENCE.sub("", row)))
