"""Lines to whole inputs: what stands between two times three quotation marks is one text, whatever lines it has."""

from __future__ import annotations

from typing import Final

__all__ = ["QUOTES", "InputAssembler"]

QUOTES: Final = '"""'


class InputAssembler:
    '''Sans-I/O: `feed` lines, and an input comes out when one is whole.

    An input is a line. One that begins with `"""`, or a command whose argument does, goes on until a line that ends
    in `"""`; the marks are no part of it.
    '''

    def __init__(self) -> None:
        self._head = ""
        self._lines: list[str] | None = None

    @property
    def is_open(self) -> bool:
        """True inside of an input of several lines."""
        return self._lines is not None

    def feed(self, line: str) -> str | None:
        """The input that this line, which has no line end, completes; or None."""
        if self._lines is None:
            head, marks, line_rest = line.partition(QUOTES)
            if not marks or (head.strip() and not head.startswith("/")):
                return line
            self._head, self._lines, line = head.lstrip(), [], line_rest
        if not line.rstrip().endswith(QUOTES):
            self._lines.append(line)
            return None
        self._lines.append(line.rstrip().removesuffix(QUOTES))
        return self.finish()

    def finish(self) -> str | None:
        """What has come of an input that is not whole, or None; afterwards the next one begins."""
        if self._lines is None:
            return None
        # the marks may stand on lines of their own
        lines = self._lines[1:] if len(self._lines) > 1 and not self._lines[0].strip() else self._lines
        if len(lines) > 1 and not lines[-1].strip():
            lines = lines[:-1]
        text = self._head + "\n".join(lines)
        self._head, self._lines = "", None
        return text

    def drop(self) -> None:
        """Forget what has come."""
        self._head, self._lines = "", None
