"""Rows of cells: an aligned table for people, lines with tabs between for programs. Nothing is cut off or colored."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from llm_local.terminal.sanitize import sanitize_line
from llm_local.terminal.streams import STDOUT, AnswerWriter

__all__ = ["aligned", "tab_lines", "to_terminal", "write_rows"]

_GAP = "  "


def to_terminal() -> bool:
    """True when stdout is a terminal, and so a person reads along."""
    return os.isatty(STDOUT)


def write_rows(
    answer: AnswerWriter,
    header: Sequence[str],
    shown: Iterable[Sequence[str]],
    plain: Iterable[Sequence[str]],
    *,
    right: Collection[int] = (),
) -> None:
    """Write `shown` as a table to a terminal, or else `plain`, without header; `right` are columns of numbers.

    Raises:
        StorageError: stdout refused.
    """
    answer.write(aligned(header, list(shown), right=right) if answer.on_terminal else tab_lines(plain))


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """A table with a header; nothing where there are no rows. An empty last cell leaves no blanks behind."""
    if not rows:
        return ""
    table = [[sanitize_line(cell) for cell in row] for row in (header, *rows)] if any(header) else []
    table = table or [[sanitize_line(cell) for cell in row] for row in rows]
    wide = [max(_width(row[column]) for row in table) for column in range(len(table[0]))]
    lines = (
        _GAP.join(
            " " * (width - _width(cell)) + cell if index in right else cell + " " * (width - _width(cell))
            for index, (cell, width) in enumerate(zip(row, wide, strict=True))
        )
        for row in table
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def tab_lines(rows: Iterable[Sequence[str]]) -> str:
    """A line for each row. No cell has a tab or a line end of its own."""
    return "".join("\t".join(map(sanitize_line, row)) + "\n" for row in rows)


def _width(text: str) -> int:
    """How many columns a terminal needs for a text."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
