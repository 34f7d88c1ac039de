"""Control strings in foreign text, hidden from a chat template and from the tokenizer."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["Shield", "any_of"]


class Shield:
    """Hides control strings of foreign text behind placeholders while the template runs.

    Afterwards they are tokenized one character at a time, so that no piece the tokenizer sees holds a whole one.
    """

    def __init__(self) -> None:
        # A nonce, so that no message can hold a placeholder of ours; digits, so that no filter a template may
        # apply (tojson, escape, upper) changes it.
        self._mark = f"~{secrets.randbits(64)}."
        self._literals: list[str] = []

    def cover(self, value: Any, control: re.Pattern[str]) -> Any:
        """`value` (text, or JSON-like data holding text) with every control string replaced, keys included."""
        if isinstance(value, Mapping):
            return {self.cover(key, control): self.cover(item, control) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.cover(item, control) for item in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return control.sub(self._hide, str(value))

    def restore(self, text: str) -> str:
        """The text as a person reads it."""
        return "".join(piece for piece, _ in self.pieces(text))

    def pieces(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text in pieces to be tokenized one by one; True marks a hidden control string."""
        for index, piece in enumerate(re.split(re.escape(self._mark) + r"(\d+)~", text)):
            hidden = index % 2 == 1
            if piece:
                yield (self._literals[int(piece)] if hidden else piece), hidden

    def _hide(self, found: re.Match[str]) -> str:
        if found[0] not in self._literals:
            self._literals.append(found[0])
        return f"{self._mark}{self._literals.index(found[0])}~"


def any_of(literals: Iterable[str]) -> re.Pattern[str]:
    """What finds each of some texts."""
    # longest first: of those that begin at the same place the whole one is taken, in every process alike
    longest_first = sorted(literals, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
