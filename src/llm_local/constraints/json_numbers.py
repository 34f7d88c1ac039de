"""JSON numbers have no longest one, and a model may never find the end of 0.3333. This finds it."""

from __future__ import annotations

from typing import Final

__all__ = ["NUMERIC", "NumberLength"]

MAX_CHARS: Final = (
    40  # float64 needs 24, and the longest integer that fits one has 309 digits but 17 that matter
)
NUMERIC: Final = frozenset(b"0123456789+-.eE")
_QUOTE, _BACKSLASH = b'"\\'


class NumberLength:
    """Feeds on the bytes of a JSON text and knows how long the number at its end is."""

    def __init__(self) -> None:
        self._in_string = False
        self._escaped = False
        self._length = 0

    @property
    def long_enough(self) -> bool:
        """True when the number should end where the schema lets it."""
        return self._length >= MAX_CHARS

    def feed(self, text: bytes) -> None:
        """Add the bytes of one token."""
        for byte in text:
            if self._in_string:
                self._in_string = self._escaped or byte != _QUOTE
                self._escaped = not self._escaped and byte == _BACKSLASH
            else:
                self._in_string = byte == _QUOTE
                self._length = self._length + 1 if byte in NUMERIC else 0
