"""JSON numbers have no longest one, and a model may never find the end of 0.3333. This finds it.

Nor have they a largest one: 1e999 is a JSON number, and what reads it makes infinity of it, which is none.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NUMERIC", "NumberLength"]

MAX_CHARS: Final = (
    40  # float64 needs 24, and the longest integer that fits one has 309 digits but 17 that matter
)
MAX_EXPONENT_DIGITS: Final = 2
NUMERIC: Final = frozenset(b"0123456789+-.eE")
_DIGITS: Final = frozenset(b"0123456789")
_QUOTE, _BACKSLASH = b'"\\'


class NumberLength:
    """Feeds on the bytes of a JSON text and knows how long the number at its end is."""

    def __init__(self) -> None:
        self._in_string = False
        self._escaped = False
        self._length = 0
        self._exponent: int | None = None  # digits of it so far

    @property
    def long_enough(self) -> bool:
        """True when the number should end where the schema lets it."""
        return self._length >= MAX_CHARS or self._exponent == MAX_EXPONENT_DIGITS

    @property
    def in_exponent(self) -> bool:
        """True when a number goes on, if at all, with digits of its exponent."""
        return self._exponent is not None

    def fits(self, token: bytes) -> bool:
        """False when the number, in its exponent, would get more digits there than it should have."""
        digits = token.lstrip(b"+-")
        num_digits = len(digits) - len(digits.lstrip(b"0123456789"))
        return (self._exponent or 0) + num_digits <= MAX_EXPONENT_DIGITS

    def feed(self, text: bytes) -> None:
        """Add the bytes of one token."""
        for byte in text:
            if self._in_string:
                self._in_string = self._escaped or byte != _QUOTE
                self._escaped = not self._escaped and byte == _BACKSLASH
            else:
                self._in_string = byte == _QUOTE
                self._add(byte)

    def _add(self, byte: int) -> None:
        if byte not in NUMERIC:
            self._length, self._exponent = 0, None
            return
        if byte in b"eE" and self._length:
            self._exponent = 0
        elif byte in _DIGITS and self._exponent is not None:
            self._exponent += 1
        self._length += 1
