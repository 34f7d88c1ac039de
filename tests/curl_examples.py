"""The curl commands of a page, read without a shell, and what the page shows of their answers.

Whoever has no curl can run them too: only the words that our pages use are understood, and any other is an error.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```\n", re.M | re.S)
_SHOWS = ("json", "text")


@dataclass
class Curl:
    """One request. `target` is path and query; `shown` is what stands below it, `language` how."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    language: str = ""
    shown: str = ""


def curls_of(page: str) -> Iterator[Curl]:
    """Every curl command in the sh blocks of a page. What is shown below a block is the answer to its last one."""
    blocks = [(match[1], match[2], match.start(), match.end()) for match in _FENCE.finditer(page)]
    for number, (language, text, _, end) in enumerate(blocks):
        found = [_curl(words) for words in _commands(text) if words[0] == "curl"] if language == "sh" else []
        if found and number + 1 < len(blocks):
            next_language, next_text, begin, _ = blocks[number + 1]
            if next_language in _SHOWS and not page[end:begin].strip():
                found[-1].language, found[-1].shown = next_language, next_text
        yield from found


def missing_from(shown: Any, real: Any, where: str = "") -> list[str]:
    """What a page shows and an answer lacks: keys, elements, or another type of value. Lists are compared at first."""
    if isinstance(shown, dict):
        if not isinstance(real, dict):
            return [f"{where} is no object"]
        lost = [f"{where}.{name}" for name in shown if name not in real]
        return lost + [
            one
            for name in shown
            if name in real
            for one in missing_from(shown[name], real[name], f"{where}.{name}")
        ]
    if isinstance(shown, list):
        if not isinstance(real, list) or (shown and not real):
            return [f"{where} is no list, or an empty one"]
        return missing_from(shown[0], real[0], f"{where}[0]") if shown else []
    if shown is None or real is None:
        return []
    return [] if _kind(shown) == _kind(real) else [f"{where} is {real!r}"]


def events_of(text: str) -> list[tuple[str, Any]]:
    """Server-sent events as (event, data), or lines of JSON or text as ("", line). Data that is no JSON stays text."""
    if "data: " not in text:
        return [("", _value(line)) for line in text.splitlines() if line]
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields.get("event", ""), _value(fields.get("data", ""))))
    return found


def _commands(block: str) -> Iterator[list[str]]:
    """The words of each command of a block; quotes and backslashes hold lines together."""
    pending = ""
    for line in block.splitlines():
        pending += line
        if line.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quote is still open
            pending += "\n"
            continue
        if words:
            yield words
        pending = ""
    if pending:
        raise ValueError("a command of a page does not end")


def _curl(words: list[str]) -> Curl:
    given = iter(words[1:])
    curl = Curl("", "")
    for word in given:
        if word == "-d":
            curl.body = next(given)
        elif word == "-X":
            curl.method = next(given)
        elif word == "-H":
            name, _, value = next(given).partition(": ")
            curl.headers[name] = value
        elif word.startswith("http://"):
            parts = urlsplit(word)
            curl.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        elif word != "-N":
            raise ValueError(f"curl with {word}, which this reader does not know")
    curl.method = curl.method or ("GET" if curl.body is None else "POST")
    return curl


def _kind(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value).__name__
    return "number"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
