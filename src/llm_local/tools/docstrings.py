"""What a docstring says about a function and about each of its parameters, where it says so in a plain way."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Final

__all__ = ["read_docstring"]

# `Args:` and an indented list (Google), `Parameters` underlined (NumPy), `:param name: text` (Sphinx).
_HEADINGS: Final = frozenset(
    """args, arguments, parameters, keyword args, keyword arguments, other parameters, attributes, returns, return,
    yields, raises, example, examples, note, notes, warnings, references, see also""".replace(
        "\n   ", ""
    ).split(", ")
)
_PARAMETERS: Final = frozenset({"args", "arguments", "parameters"})
_GOOGLE_ITEM: Final = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_NUMPY_ITEM: Final = re.compile(r"(\w+)\s*(?::.*)?$")
_SPHINX_ITEM: Final = re.compile(r":(param|arg|argument|parameter)\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)")


def read_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """What a function does, in one paragraph or several, and what each parameter means that it describes."""
    lines = inspect.cleandoc(text or "").splitlines()
    said: list[str] = []
    described: dict[str, str] = {}
    place = 0
    while place < len(lines):
        heading, underlined = _heading(lines, place)
        sphinx = _SPHINX_ITEM.match(lines[place])
        if sphinx is not None:
            place = _read_field(lines, place, described, sphinx)
        elif lines[place].startswith(":"):  # :returns: and the like
            place = _end_of_item(lines, place + 1, 0)
        elif heading:
            start = place + (2 if underlined else 1)
            place = _end_of_section(lines, start, underlined=underlined)
            if heading in _PARAMETERS:
                _read_items(lines[start:place], described, _NUMPY_ITEM if underlined else _GOOGLE_ITEM)
        else:
            said.append(lines[place])
            place += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(said)).strip(), described


def _heading(lines: Sequence[str], place: int) -> tuple[str, bool]:
    """The name of the section that begins at a line, in lower case, or ""; and whether it is underlined."""
    line = lines[place].rstrip()
    name = line.removesuffix(":").lower()
    if name not in _HEADINGS:
        return "", False
    underlined = place + 1 < len(lines) and bool(re.fullmatch(r"-{3,}\s*", lines[place + 1]))
    return (name, underlined) if underlined or line.endswith(":") else ("", False)


def _end_of_section(lines: Sequence[str], start: int, *, underlined: bool) -> int:
    """The line behind a section: of an indented one the next that is not, of an underlined one the next heading."""
    for place in range(start, len(lines)):
        line = lines[place]
        if underlined and _heading(lines, place)[1]:
            return place
        if not underlined and line and not line[0].isspace():
            return place
    return len(lines)


def _end_of_item(lines: Sequence[str], start: int, indent: int) -> int:
    place = start
    while place < len(lines) and lines[place].strip() and _indent(lines[place]) > indent:
        place += 1
    return place


def _read_items(lines: Sequence[str], described: dict[str, str], item: re.Pattern[str]) -> None:
    indent = min((_indent(line) for line in lines if line.strip()), default=0)
    name = ""
    for line in lines:
        found = item.match(line.strip()) if line.strip() and _indent(line) == indent else None
        if found is not None:
            name = found[1]
            described[name] = found[2] if item is _GOOGLE_ITEM else ""
        elif name:
            described[name] = f"{described[name]} {line.strip()}".strip()


def _read_field(lines: Sequence[str], place: int, described: dict[str, str], found: re.Match[str]) -> int:
    end = _end_of_item(lines, place + 1, 0)
    described[found[2]] = " ".join([found[3], *(line.strip() for line in lines[place + 1 : end])]).strip()
    return end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
