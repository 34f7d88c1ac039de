"""What people type to find a conversation, as a query that no syntax can break, and the line around what was found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from llm_local.errors import InvalidRequest
from llm_local.messages import check_text

__all__ = ["Query", "read_query", "snippet"]

_INDEXED_CHARS: Final = 3  # the index knows pieces of three characters
_MAX_CHARS: Final = 1000
_MAX_WORDS: Final = 50
_BEFORE: Final = 40
_AFTER: Final = 80


@dataclass(frozen=True, slots=True)
class Query:
    """The words of a query: `long` ones as an expression of FTS5, `short` ones as a JSON list; either may be empty."""

    words: tuple[str, ...]
    long: str
    short: str


def read_query(text: str) -> Query:
    """Take a query apart at its blanks; quotes, stars, AND and NOT are text like any other.

    Raises:
        InvalidRequest: it is empty, too long, or no Unicode.
    """
    check_text(text, "text")
    words = tuple(text.replace("\0", " ").split())
    if not words:
        raise InvalidRequest("There is nothing to search for.", "Give a word.", param="text")
    if len(text) > _MAX_CHARS or len(words) > _MAX_WORDS:
        raise InvalidRequest(
            f"The search text is too long: at most {_MAX_CHARS} characters and {_MAX_WORDS} words.",
            param="text",
        )
    long = [word for word in words if len(word) >= _INDEXED_CHARS]
    short = [word.casefold() for word in words if len(word) < _INDEXED_CHARS]
    quoted = " AND ".join('"' + word.replace('"', '""') + '"' for word in long)
    return Query(words, quoted, json.dumps(short) if short else "")


def snippet(text: str, words: tuple[str, ...]) -> str:
    """One line of text around the first of the words that is in it."""
    lowered = text.lower()
    places = [place for word in words if (place := lowered.find(word.lower())) >= 0]
    first = min(places, default=0)
    start = max(0, first - _BEFORE)
    end = first + _AFTER
    line = " ".join(text[start:end].split())
    return ("…" if start else "") + line + ("…" if end < len(text) else "")
