"""Is a database damaged, or did the disk only stumble? Looked at anew before anything is moved."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, Literal

from llm_local.conversations.failures import is_damage
from llm_local.conversations.statements import CHECK_INDEXES, REBUILD_INDEXES

__all__ = ["Verdict", "examine", "rebuild_indexes"]

Verdict = Literal["whole", "index", "damaged"]

_PATIENCE_S: Final = 30.0


def examine(path: Path) -> Verdict:
    """What a fresh look at all of a database finds: nothing wrong, the index of words alone, or more.

    Raises:
        sqlite3.Error: it cannot be looked at now.
    """
    with closing(sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)) as connection:
        try:
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                return "damaged"
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return "damaged"
            raise
        try:
            for statement in CHECK_INDEXES:
                connection.execute(statement)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                return "index"
            if _has_tables(connection):
                raise
        return "whole"


def rebuild_indexes(path: Path) -> None:
    """Make the index of words anew from the words themselves.

    Raises:
        sqlite3.Error: it cannot be done.
    """
    with closing(sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)) as connection:
        for statement in REBUILD_INDEXES:
            connection.execute(statement)


def _has_tables(connection: sqlite3.Connection) -> bool:
    """False for a new database, in which nothing can be checked."""
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
