"""What SQLite's refusals mean, in the words of our own errors."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from llm_local.errors import Busy, InvalidRequest, LocalLLMError, StorageError

__all__ = ["explain", "explain_os", "is_damage"]

_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_REFUSED: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk refused",
    sqlite3.SQLITE_READONLY: "it can only be read",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_PERM: "no permission",
    sqlite3.SQLITE_AUTH: "no permission",
    sqlite3.SQLITE_NOLFS: "the disk takes no file of that size",
}


def is_damage(error: sqlite3.Error) -> bool:
    """True when the file itself is wrong, and no later try will find it right."""
    return _code(error) in _DAMAGE


def explain(error: sqlite3.Error, path: Path) -> LocalLLMError | None:
    """The error of ours that stands for one of SQLite's; None for what only a mistake in our code brings."""
    code = _code(error)
    if code in _REFUSED:
        hint = (
            "Free some space."
            if code == sqlite3.SQLITE_FULL
            else "Look at the folder's permissions and space."
        )
        return StorageError(f"Conversations cannot be kept in {path}: {_REFUSED[code]}.", hint)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return Busy(f"Another program has held {path} for too long.", "Try again later.")
    if code == sqlite3.SQLITE_TOOBIG:
        return InvalidRequest("The message is too large to be kept.", param="content")
    return None


def explain_os(error: OSError, path: Path) -> StorageError:
    """The same for a refusal of the system."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    where = error.filename or path
    if error.errno == errno.ELOOP:
        return StorageError(f"{where} is a link, and is not followed.", "Remove it.")
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "Free some space" if is_full else "Look at the folder's permissions"
    return StorageError(
        f"Conversations cannot be kept in {where}: {reason}.", f"{hint}, or set LLM_LOCAL_HOME."
    )


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # above the low byte are finer reasons
