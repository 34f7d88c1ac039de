"""What was typed into a chat, on disk: a file that several chats may write to at once.

An entry is its lines, each led by `+`, below a line that begins with `#`; what prompt-toolkit writes. Every entry is
appended in one write, so that two chats keep both of theirs. Only its owner may read the file.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["HISTORY_NAME", "MAX_ENTRY_CHARS", "HistoryFile"]

HISTORY_NAME: Final = ".llm_chat_history"
MAX_ENTRY_CHARS: Final = 20_000
"""A longer entry is for this chat only."""
_MAX_READ_BYTES: Final = 4 << 20


class HistoryFile:
    """The entries of the file at `path`; None keeps nothing. What the disk refuses is told once, to `on_failure`."""

    def __init__(self, path: Path | None, on_failure: Callable[[str], None]) -> None:
        self._path = path
        self._on_failure = on_failure

    def entries(self) -> list[str]:
        """The oldest first, as far back as the last part of the file holds them."""
        if self._path is None:
            return []
        try:
            return _entries(_read_end(self._path))
        except FileNotFoundError:
            return []
        except OSError as error:
            self._fail("read", error)
            return []

    def add(self, entry: str) -> None:
        """Append an entry."""
        if self._path is None or len(entry) > MAX_ENTRY_CHARS:
            return
        lines = "".join(f"+{line}\n" for line in entry.split("\n"))
        data = f"\n# {datetime.datetime.now()}\n{lines}".encode("utf-8", "replace")
        try:
            _append(self._path, data)
        except OSError as error:
            self._fail("write", error)

    def _fail(self, what: str, error: OSError) -> None:
        reason = os.strerror(error.errno) if error.errno else str(error)
        self._on_failure(
            f"Cannot {what} the history of inputs, {self._path}: {reason}. The chat goes on without."
        )
        self._path = None


def _read_end(path: Path) -> bytes:
    # a pipe without a writer would be waited for
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MAX_READ_BYTES))
        return file.read(_MAX_READ_BYTES)


def _entries(data: bytes) -> list[str]:
    entries: list[str] = []
    lines: list[str] = []
    for line in [*data.decode("utf-8", "replace").split("\n"), ""]:
        if line.startswith("+"):
            lines.append(line[1:])
        elif lines:
            entries.append("\n".join(lines))
            lines = []
    return entries


def _append(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        with contextlib.suppress(PermissionError):  # somebody else's file, which we may write to
            os.fchmod(descriptor, 0o600)
        if os.write(descriptor, data) != len(data):
            raise OSError(0, "no space left")
    finally:
        os.close(descriptor)
