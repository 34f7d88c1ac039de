"""The schema of the database of conversations, as the steps that lead to it, each in one transaction.

`PRAGMA user_version` is the number of steps that were taken. A step is never changed once it is released; a new shape
is a new step at the end. `PRAGMA application_id` tells our databases from others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from llm_local.errors import DatabaseUnusable

__all__ = ["APPLICATION_ID", "MIGRATIONS", "Migration", "migrate", "schema_version"]

APPLICATION_ID: Final = 0x6C6C6D63

Migration = Callable[[sqlite3.Connection], None]

_FIRST: Final = (
    # `touched` counts changes of all conversations: what was used last is told by it, not by a clock.
    """CREATE TABLE conversations (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        title TEXT NOT NULL,
        model TEXT,
        created REAL NOT NULL,
        modified REAL NOT NULL,
        touched INTEGER NOT NULL,
        forked_from TEXT
    ) STRICT""",
    "CREATE INDEX conversations_of_owner ON conversations (owner, touched)",
    # A message's position is the number of earlier rows of its conversation; a number is never used twice.
    """CREATE TABLE messages (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation INTEGER NOT NULL REFERENCES conversations (seq) ON DELETE CASCADE,
        role TEXT NOT NULL,
        content TEXT NOT NULL,
        details TEXT,
        status TEXT NOT NULL CHECK (status IN ('complete', 'interrupted')),
        facts TEXT,
        created REAL NOT NULL
    ) STRICT""",
    "CREATE INDEX messages_of_conversation ON messages (conversation, seq)",
    # Trigrams find any part of a word in any script, also where words have no blanks between them.
    "CREATE VIRTUAL TABLE message_words USING fts5 (text, tokenize = 'trigram')",
    "CREATE VIRTUAL TABLE title_words USING fts5 (text, tokenize = 'trigram')",
    """CREATE TRIGGER message_gone AFTER DELETE ON messages
       BEGIN DELETE FROM message_words WHERE rowid = old.seq; END""",
    """CREATE TRIGGER conversation_gone AFTER DELETE ON conversations
       BEGIN DELETE FROM title_words WHERE rowid = old.seq; END""",
    f"PRAGMA application_id = {APPLICATION_ID}",
)


def _create(connection: sqlite3.Connection) -> None:
    for statement in _FIRST:
        connection.execute(statement)


MIGRATIONS: Final[tuple[Migration, ...]] = (_create,)


def schema_version(connection: sqlite3.Connection, path: Path, known: int) -> int:
    """How many steps a database has behind it; 0 for an empty one.

    Raises:
        DatabaseUnusable: it is of another program, or of a version of ours that knows more than `known` steps.
        sqlite3.Error: it cannot be read.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    program = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if tables and program != APPLICATION_ID:
        raise DatabaseUnusable(
            f"{path} is a database of another program.", "Move it away, or set LLM_LOCAL_HOME."
        )
    if version > known:
        raise DatabaseUnusable(
            f"The conversations in {path} have schema {version}, and this llm-local knows schemas up to {known}.",
            "Use the newer llm-local that wrote them, or set LLM_LOCAL_HOME to another folder.",
            kind="newer_schema",
        )
    return version


def migrate(
    connection: sqlite3.Connection,
    version: int,
    migrations: Sequence[Migration],
    backup: Callable[[int], None],
) -> None:
    """Take the steps that are missing after `version`; `backup` is called with it before the first of an old database.

    Each step is there as a whole or not at all, also when the process is killed in it.

    Raises:
        sqlite3.Error: a step failed, and was taken back.
    """
    if 0 < version < len(migrations):
        backup(version)
    for number, step in enumerate(migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(connection)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
