"""Digests of contents, as the hub gives them: a sha256, or the sha1 that git gives a blob."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["RunningDigest", "file_digest", "file_matches"]

_SHA256_CHARS: Final = 64
_READ_BYTES: Final = 1 << 20


class RunningDigest:
    """The digest of contents that come piece by piece. `position` is how many bytes were fed.

    What git calls a blob guards small files against accidents, not against forgers; it begins with its size.
    """

    def __init__(self, digest: str, num_bytes: int) -> None:
        self._digest = digest
        if len(digest) == _SHA256_CHARS:
            self._hasher = hashlib.sha256()
        else:
            self._hasher = hashlib.sha1(b"blob %d\0" % num_bytes, usedforsecurity=False)
        self.position = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._hasher.update(data)
        self.position += len(data)

    def feed_file(self, path: Path, num_bytes: int) -> None:
        """Take the first `num_bytes` of a file.

        Raises:
            OSError: it cannot be read.
        """
        with open(path, "rb") as data:
            while num_bytes and (piece := data.read(min(_READ_BYTES, num_bytes))):
                self.feed(piece)
                num_bytes -= len(piece)

    def hexdigest(self) -> str:
        """The digest of what was fed so far."""
        return self._hasher.hexdigest()

    def matches(self) -> bool:
        """True when what was fed so far has the digest that was promised, or none was promised."""
        return not self._digest or self._hasher.hexdigest() == self._digest


def file_matches(path: Path, digest: str) -> bool:
    """True when a file has `digest` ("" fits all).

    Raises:
        OSError: it cannot be read.
    """
    if not digest:
        return True
    size = path.stat().st_size
    running = RunningDigest(digest, size)
    running.feed_file(path, size)
    return running.matches()


def file_digest(path: Path, on_bytes: Callable[[int], None] = lambda done: None, *, like: str = "") -> str:
    """The digest of a file, of the kind that `like` is, else its sha256. `on_bytes` is told how far it is.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as data:
        running = RunningDigest(like or "0" * _SHA256_CHARS, path.stat().st_size)
        while piece := data.read(_READ_BYTES):
            running.feed(piece)
            on_bytes(running.position)
    return running.hexdigest()
