"""A raw stream that remembers what was written, and can be a terminal, slow, full or closed."""

from __future__ import annotations

import io


class FakeRaw(io.RawIOBase):
    """`chunk` bytes at most are taken by one write; `error` is raised once `room` bytes are full."""

    def __init__(
        self,
        *,
        terminal: bool = False,
        chunk: int = 1 << 20,
        room: int = 1 << 30,
        error: OSError | None = None,
    ) -> None:
        self.data = b""
        self.writes = 0
        self._terminal = terminal
        self._chunk = chunk
        self._room = room
        self._error = error

    def isatty(self) -> bool:
        return self._terminal

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        if self._error and len(self.data) >= self._room:
            raise self._error
        taken = bytes(data)[: min(self._chunk, self._room - len(self.data))]
        self.data += taken
        self.writes += 1
        return len(taken)

    @property
    def text(self) -> str:
        return self.data.decode("utf-8")
