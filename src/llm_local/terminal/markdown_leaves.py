"""Markdown as a flat row of leaves: headings, lines of text, code, tables, rules, each with what stands left of it.

Lists and quotes are no blocks of their own here: they are the prefixes of the leaves in them. That makes one law hold,
on which streaming stands: when whole lines are added to a source, all its leaves but the last stay what they are.
Four choices of dialect make the law true, or answers readable:

- a line break stays one, as people who write to each other mean it;
- markup that opens on one line and closes on another is looked for in a few lines only;
- a title is `# Title`; a line underlined with `---` is a line and a rule, since models mean it so;
- there are no link definitions, which would change what stands above them, and no HTML.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["Leaf", "inline_tokens", "parse_leaves"]

LeafKind = Literal["text", "heading", "code", "table", "rule", "item"]
Alignment = Literal["left", "center", "right"]

# Markup that spans more lines than this is shown as it is written.
_MAX_GROUP_LINES: Final = 8
# What is left in a text after parsing and could still open something that a later line closes.
_OPENER: Final = re.compile(r"\*(?=\S)|(?<!\w)_(?=\S)|~~|`|\[[^\]]*$")
_SPECIAL: Final = re.compile(r"[*_~`\[]")
_PIPE: Final = re.compile(r"(?<!\\)\|")
_EMPTY_ITEM: Final = re.compile(r"[\s>]*(?:([-+*]|\d{1,9}[.)])\s*)*")
_MAX_NESTING: Final = 80
_CONTAINER_MARKS: Final = " \t>"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One piece of a document. `start` and `end` are its lines in the source; `top` is where its outermost block
    begins.

    `first` stands left of its first row, `rest` left of the others. `apart` stands in the blank row before it, None
    where there is none. `text` is Markdown, or what code consists of, each line with its end. `is_fence` says that the
    lines of `text` are those of the source that follow the first. An `item` is an empty list item.
    """

    kind: LeafKind
    start: int
    end: int
    top: int
    first: str
    rest: str
    apart: str | None
    text: str = ""
    language: str = ""
    level: int = 0
    is_fence: bool = False
    cells: tuple[tuple[str, ...], ...] = ()
    """Rows of a table, the header first."""
    alignments: tuple[Alignment, ...] = ()


@dataclass(slots=True)
class _Container:
    """A quote or a list item, and whether a leaf of it was met already."""

    first: str
    rest: str
    start: int
    end: int
    used: bool = False


def parse_leaves(source: str) -> list[Leaf]:
    """The leaves of a document, in order."""
    return list(_Reader(source).leaves())


def inline_tokens(text: str) -> Sequence[Token]:
    """The parts of a text: emphasis, code, links. Nothing in it is a block."""
    tokens = _parser(inline=True).parseInline(text)
    return tokens[0].children or []


class _Reader:
    def __init__(self, source: str) -> None:
        self._lines = source.split("\n")
        self._tokens = _parser(inline=False).parse(source)
        self._containers: list[_Container] = []
        self._numbers: list[int | None] = []  # of each open list, the number of its next item
        self._top = 0
        self._last_end = 0
        self._last_top: int | None = None

    def leaves(self) -> Iterator[Leaf]:
        tokens = iter(self._tokens)
        for token in tokens:
            if token.level == 0 and token.map:
                self._top = token.map[0]
            if token.type in ("blockquote_open", "bullet_list_open", "ordered_list_open", "list_item_open"):
                self._enter(token)
            elif token.type in ("bullet_list_close", "ordered_list_close"):
                self._numbers.pop()
            elif token.type in ("blockquote_close", "list_item_close"):
                if not self._containers[-1].used:
                    yield self._without_content(self._containers[-1])
                self._containers.pop()
            elif token.type == "table_open":
                yield from self._table(token, tokens)
            elif token.map:
                yield from self._simple(token, tokens)

    def _enter(self, token: Token) -> None:
        start, end = token.map or (0, 0)
        if token.type == "bullet_list_open":
            self._numbers.append(None)
        elif token.type == "ordered_list_open":
            self._numbers.append(int(token.attrs.get("start", 1)))
        elif token.type == "blockquote_open":
            self._containers.append(_Container("▌ ", "▌ ", start, end))
        else:
            number = self._numbers[-1]
            mark = "• "
            if number is not None:
                mark = f"{number}{token.markup} "
                self._numbers[-1] = number + 1
            self._containers.append(_Container(mark, " " * len(mark), start, end))

    def _simple(self, token: Token, tokens: Iterator[Token]) -> Iterator[Leaf]:
        start, end = token.map or (0, 0)
        if token.type == "heading_open":
            yield self._leaf("heading", start, end, text=next(tokens).content, level=int(token.tag[1:]))
        elif token.type == "hr":
            yield self._leaf("rule", start, end)
        elif token.type in ("fence", "code_block"):
            words = token.info.split(maxsplit=1)
            yield self._leaf(
                "code",
                start,
                end,
                text=token.content,
                language=words[0] if words else "",
                is_fence=token.type == "fence",
            )
        elif token.type == "paragraph_open":
            line = start
            for group in _groups(next(tokens).content.split("\n")):
                num_lines = group.count("\n") + 1
                yield self._leaf("text", line, line + num_lines, text=group)
                line += num_lines

    def _table(self, token: Token, tokens: Iterator[Token]) -> Iterator[Leaf]:
        start, end = token.map or (0, 0)
        rows: list[list[str]] = []
        alignments: list[Alignment] = []
        for part in tokens:
            if part.type == "table_close":
                break
            if part.type == "tr_open":
                rows.append([])
            elif part.type == "inline":
                rows[-1].append(part.content)
            elif part.type == "th_open":
                alignments.append(_alignment(str(part.attrs.get("style", ""))))
        lines = [line.strip(_CONTAINER_MARKS) for line in self._lines[start:end]]
        if any(_num_cells(line) > len(alignments) for line in lines):
            # The rule of tables drops cells without a column, but nothing of an answer may get lost.
            yield self._leaf("text", start, end, text="\n".join(lines))
        else:
            cells = tuple(map(tuple, rows))
            yield self._leaf("table", start, end, cells=cells, alignments=tuple(alignments))

    def _without_content(self, container: _Container) -> Leaf:
        """An empty item; or one so deep that the parser has left out what is in it, which is shown as it is written."""
        lines = self._lines[container.start : container.end]
        if all(_EMPTY_ITEM.fullmatch(line) for line in lines):
            return self._leaf("item", container.start, container.start + 1)
        return self._leaf("text", container.start, container.end, text="\n".join(lines))

    def _leaf(self, kind: LeafKind, start: int, end: int, **details: object) -> Leaf:
        first = "".join(one.rest if one.used else one.first for one in self._containers)
        rest = "".join(one.rest for one in self._containers)
        apart = None
        if self._top != self._last_top or start > self._last_end:
            apart = "".join(one.rest for one in self._containers if one.used).rstrip()
        for one in self._containers:
            one.used = True
        self._last_end, self._last_top = end, self._top
        leaf = Leaf(kind, start, end, self._top, first, rest, apart)
        return dataclasses.replace(leaf, **details)  # type: ignore[arg-type]


@functools.cache
def _parser(*, inline: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING}).enable(
        ["table", "strikethrough"]
    )
    parser.disable(["reference", "lheading"])
    if not inline:
        parser.disable(["inline", "text_join"])  # only leaves that are drawn are looked into
    return parser


def _groups(lines: Sequence[str]) -> Iterator[str]:
    """The lines of a paragraph, joined where markup may span them; known from the lines before its end."""
    group: list[str] = []
    for number, line in enumerate(lines):
        group.append(line)
        text = "\n".join(group)
        if number == len(lines) - 1 or len(group) == _MAX_GROUP_LINES or _is_closed(text):
            yield text
            group = []


@functools.lru_cache(maxsize=512)
def _is_closed(text: str) -> bool:
    """True when nothing that is open at the end of `text` could be closed by what follows."""
    if text.endswith("\\"):
        return False  # the mark of a line break, if a line follows
    if not _SPECIAL.search(text):
        return True
    parts = (token.content for token in inline_tokens(text) if token.type == "text")
    return not any(_OPENER.search(part) for part in parts)


def _num_cells(line: str) -> int:
    line = line.removeprefix("|")
    if line.endswith("|") and not line.endswith("\\|"):
        line = line[:-1]
    return len(_PIPE.findall(line)) + 1


def _alignment(style: str) -> Alignment:
    if style.endswith("right"):
        return "right"
    return "center" if style.endswith("center") else "left"
