"""Whose turn it is: one process at a time writes, and what it writes is one transaction."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from llm_local.conversations.files import open_lock
from llm_local.errors import Busy
from llm_local.locks import try_lock

__all__ = ["PATIENCE_S", "alone", "transaction"]

PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.003


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a database among processes. Not to be nested: a process that asks twice waits for itself.

    Raises:
        Busy: another process did not let go for PATIENCE_S seconds.
        OSError: the lock file cannot be made.
    """
    handle = open_lock(path)
    try:
        _wait_for(handle, path)
        yield
    finally:
        os.close(handle)


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[sqlite3.Connection]:
    """What is done in the block happens as a whole, or not at all when it raises.

    Raises:
        sqlite3.Error: SQLite refuses.
    """
    try:
        connection.execute(begin)
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _wait_for(handle: int, path: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    try:
        while not try_lock(handle):
            if time.monotonic() > end:
                raise Busy(f"Another program has held {path} for too long.", "Try again later.")
            time.sleep(_POLL_S)
    except OSError:
        return  # a disk without locks
