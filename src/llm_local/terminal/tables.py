"""Rows of cells: an aligned table for people, lines with tabs between for programs. Nothing is cut off or colored."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import zip_longest

from llm_local.terminal.sanitize import sanitize_line
from llm_local.terminal.streams import STDOUT, AnswerWriter

__all__ = ["aligned", "fitted", "tab_lines", "to_terminal", "write_rows"]

_GAP = "  "
_LEAST_WIDTH = 8


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
    table = _harmless(header, rows)
    return _joined(table, _widths(table), right)


def fitted(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """The same in `width` columns: cells are broken between words; where even that is too wide, each is a line."""
    table = _harmless(header, rows) if rows else []
    wide = _widths(table) if table else []
    if sum(wide) + len(_GAP) * (len(wide) - 1) <= width:
        return _joined(table, wide)
    if len(wide) * (_LEAST_WIDTH + len(_GAP)) > width:
        return "\n".join(_stacked([sanitize_line(name) for name in header], rows))
    # The widest column gets what the others leave.
    at = wide.index(max(wide))
    share = max(_LEAST_WIDTH, width // (len(wide) + 1))
    limits = [one if column == at else min(one, share) for column, one in enumerate(wide)]
    limits[at] = width - (sum(limits) - limits[at]) - len(_GAP) * (len(wide) - 1)
    broken: list[Sequence[str]] = []
    for row in table:
        cells = [_broken(cell, limit) for cell, limit in zip(row, limits, strict=True)]
        broken += zip_longest(*cells, fillvalue="")
    return _joined(broken, limits)


def _harmless(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """All rows, and the header before them where there is one."""
    return [[sanitize_line(cell) for cell in row] for row in ((header,) if any(header) else ()) + tuple(rows)]


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(_width(row[column]) for row in table) for column in range(len(table[0]))]


def _joined(table: Sequence[Sequence[str]], wide: Sequence[int], right: Collection[int] = frozenset()) -> str:
    lines = (
        _GAP.join(
            " " * (width - _width(cell)) + cell if index in right else cell + " " * (width - _width(cell))
            for index, (cell, width) in enumerate(zip(row, wide, strict=True))
        )
        for row in table
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _stacked(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """For each row the lines of its cells, those that are empty left out."""
    for row in rows:
        cells = zip(names, map(sanitize_line, row), strict=True)
        yield "".join(f"{name}: {cell}\n" if name else f"{cell}\n" for name, cell in cells if cell)


def _broken(text: str, width: int) -> list[str]:
    """A text in lines that fit, broken between words, or in a word that is longer than a line."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and _width(lines[-1]) + 1 + _width(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for char in word:
            if lines[-1] and _width(lines[-1]) + _width(char) > width:
                lines.append("")
            lines[-1] += char
    return lines


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
