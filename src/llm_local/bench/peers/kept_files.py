"""Large files that a benchmark makes for other programs and keeps for the next run: those used last, up to a limit.

    <folder>/<name>    a file, or a folder of files, whole; its time of change says when it was last used
             lock      locked by whoever makes one

A process that uses one holds a shared lock on it, and what is locked is not deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from llm_local.locks import locked, try_lock

__all__ = ["KEPT_BYTES", "KeptFiles"]

logger = logging.getLogger(__name__)

KEPT_BYTES: Final = 20_000 << 20
_LOCK: Final = "lock"
_UNFINISHED: Final = (".part", ".plain")

# What this process uses: each stays open, and so locked, until it ends.
_in_use: Final[dict[Path, int]] = {}


class KeptFiles:
    """The files in `folder`, which exists; at most `limit_bytes` of them, or the one that is needed now."""

    def __init__(self, folder: Path, limit_bytes: int = KEPT_BYTES) -> None:
        self._folder = folder
        self._limit = limit_bytes

    def have(self, name: str, need_bytes: int, make: Callable[[Path], None]) -> Path:
        """The file or folder `name`; `make` makes it, whole or not at all, with room for about `need_bytes`.

        It stays at least until this process ends.
        """
        path = self._folder / name
        with self._alone():
            if not path.exists():
                self._make_room(need_bytes)
                make(path)
            _use(path)
        return path

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of several processes one makes and deletes at a time, where the file system has locks."""
        told: list[str] = []

        def tell() -> None:
            if not told:
                told.append(_LOCK)
                logger.warning("waiting for another benchmark that writes to %s", self._folder)

        with ExitStack() as stack:
            with suppress(OSError):
                stack.enter_context(locked(self._folder / _LOCK, tell))
            yield

    def _make_room(self, num_bytes: int) -> None:
        for path in self._folder.iterdir():
            if path.name.endswith(_UNFINISHED):  # of one that was killed
                _delete(path)
        kept = [path for path in self._folder.iterdir() if path.name != _LOCK]
        excess = sum(map(_size, kept)) + num_bytes - self._limit
        for path in sorted(kept, key=lambda one: one.stat().st_mtime):
            if excess <= 0:
                return
            if _is_free(path):
                excess -= _size(path)
                _delete(path)


def _use(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)
        if path not in _in_use:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            _in_use[path] = handle
            try_lock(handle, shared=True)


def _is_free(path: Path) -> bool:
    """True when no process says that it uses it; where there are no locks, nobody does."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return try_lock(handle)
    except OSError:
        return True
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
