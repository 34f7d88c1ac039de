"""Locks that processes hold on files, so that of several which want the same work one does it.

The system frees a lock when its holder dies, so nobody waits for the dead. The lock is all that a lock file is for: it
is empty, and it stays. Some file systems have no locks, and some platforms no such call; both are an OSError.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["LockTimeout", "locked", "try_lock"]

POLL_S = 0.1


class LockTimeout(Exception):
    """Another process has held a lock for longer than the caller wanted to wait."""


def try_lock(file: int | IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file, alone or together with others that share it; False while another process is in the way.

    The lock lasts until the file, its duplicates and its mappings are closed.

    Raises:
        OSError: there are no locks here.
    """
    try:
        # Late: not on every platform, and importing what may need a lock must work on all of them.
        import fcntl
    except ImportError:
        raise OSError(errno.ENOTSUP, "This platform has no file locks") from None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(
    path: Path, on_wait: Callable[[], None] = lambda: None, *, patience_s: float | None = None
) -> Iterator[None]:
    """Hold the lock at `path`, made with its folders where it is missing.

    While another process has it, `on_wait` is called several times a second, for `patience_s` seconds at most (None:
    as long as it takes).

    Raises:
        LockTimeout: the other one still has it.
        OSError: the lock file cannot be made, or there are no locks here; `filename` says where.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _wait(handle, path, on_wait, patience_s)
        yield
    finally:
        os.close(handle)


def _wait(handle: int, path: Path, on_wait: Callable[[], None], patience_s: float | None) -> None:
    began = time.monotonic()
    try:
        while not try_lock(handle):
            if patience_s is not None and time.monotonic() - began > patience_s:
                raise LockTimeout(str(path))
            on_wait()
            time.sleep(POLL_S)
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
