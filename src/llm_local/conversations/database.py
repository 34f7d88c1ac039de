"""One open database of conversations: who may write when, what a refusal means, and what is done about damage.

- Threads take turns at one connection. Processes take turns at a file lock around every write and every checkpoint,
  so that no two of them ever write at once: SQLite before 3.51.3 can lose data when one resets the log as another
  writes to it. Where there are no file locks SQLite's own have to do.
- A write is on the disk when it returns (`synchronous = FULL`), whole or not at all.
- A damaged file is moved aside, never thrown away, and the last backup takes its place.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from llm_local.conversations import files, turns
from llm_local.conversations.damage import examine, rebuild_indexes
from llm_local.conversations.failures import explain, explain_os, is_damage
from llm_local.conversations.migrations import MIGRATIONS, Migration, migrate, schema_version
from llm_local.conversations.statements import MERGE_INDEXES
from llm_local.conversations.turns import alone, transaction
from llm_local.errors import DatabaseUnusable, LocalLLMError, StorageError

__all__ = ["Database"]

_CHECKPOINT_BYTES: Final = 4 << 20
_DAY_S: Final = 86400.0
_LARGE_BYTES: Final = 64 << 20
_SETTINGS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "secure_delete = ON",  # what is deleted is overwritten
    "mmap_size = 0",
    "wal_autocheckpoint = 0",
    f"journal_size_limit = {4 * _CHECKPOINT_BYTES}",
)


class Database:
    """The connection and its rules. `notices` are sentences for people about what was found and mended."""

    def __init__(self, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        """Open a database, or make it.

        Raises:
            DatabaseUnusable: it is of another program or of a newer version, or cannot be mended.
            StorageError: the disk refuses.
            Busy: another process holds it for too long.
        """
        self.path = path
        self.notices: list[str] = []
        self._migrations = migrations
        self._turn = threading.Lock()
        self._closed = False
        self._identity: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        with self._turn, self._translating(), alone(self.path):
            self._open()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent look at the database.

        Raises:
            DatabaseUnusable: it was damaged, and was moved aside just now.
            StorageError, Busy: as for opening.
        """
        with self._turn, self._translating():
            if not self._is_ready():
                with alone(self.path):
                    self._open()
            with transaction(self._opened(), "BEGIN") as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One change: on the disk as a whole when the block is left, or not at all when it raises.

        Raises:
            DatabaseUnusable, StorageError, Busy: as for reading.
        """
        with self._turn, self._translating(), alone(self.path):
            if not self._is_ready():
                self._open()
            with transaction(self._opened(), "BEGIN IMMEDIATE") as connection:
                yield connection
            # What was written is safe in the log, whether or not it can be brought over now.
            with suppress(sqlite3.Error, OSError):
                self._checkpoint(_CHECKPOINT_BYTES)

    def forget(self) -> None:
        """Leave no trace of what was deleted: not in the log, not in the index, not in a backup.

        Raises:
            DatabaseUnusable, StorageError, Busy: as for reading.
        """
        with self._turn, self._translating(), alone(self.path):
            if not self._is_ready():
                self._open()
            for statement in MERGE_INDEXES:
                self._opened().execute(statement)
            self._checkpoint(0)
            files.drop_backups(self.path)
            files.sweep(self.path)
            self._back_up()

    def close(self) -> None:
        """Let go of the files; a second time does nothing."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            # Closing writes the log back, which is a turn like any other. If none can be had it is done by the next.
            with suppress(LocalLLMError, OSError), alone(self.path):
                self._disconnect()
            self._disconnect()

    def _is_ready(self) -> bool:
        """False when the database is to be opened anew: somebody took the file away, or put another in its place."""
        if self._closed:
            raise LocalLLMError("The store of conversations is closed.")
        return self._connection is not None and self._identity == _identity(self.path)

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LocalLLMError("The store of conversations is closed.")
        return self._connection

    def _open(self) -> None:
        self._disconnect()
        files.tighten(self.path)
        files.sweep(self.path)
        if files.is_emptied(self.path):
            self._replace("it is empty")
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._heal(error)

    def _connect(self) -> None:
        files.create(self.path)
        self._connection = connection = sqlite3.connect(
            self.path, timeout=turns.PATIENCE_S, isolation_level=None, check_same_thread=False
        )
        self._identity = _identity(self.path)
        try:
            connection.create_function("contains_all", 2, _contains_all, deterministic=True)
            version = schema_version(connection, self.path, len(self._migrations))
            for setting in _SETTINGS:
                connection.execute(f"PRAGMA {setting}").fetchall()
            migrate(connection, version, self._migrations, partial(files.write_backup, connection, self.path))
            # A name that every schema has, read to see that there is a table behind it.
            connection.execute("SELECT 1 FROM conversations LIMIT 1").fetchone()
            if version:
                self._back_up_if_due()
        except BaseException:
            self._disconnect()
            raise

    def _back_up_if_due(self) -> None:
        age = files.backup_age_s(self.path)
        large = self.path.stat().st_size > _LARGE_BYTES
        if age is None or age > (7 * _DAY_S if large else _DAY_S):
            self._back_up()

    def _back_up(self) -> None:
        connection = self._connection
        if connection is None or not connection.execute("SELECT 1 FROM messages LIMIT 1").fetchone():
            return
        try:
            files.write_backup(connection, self.path)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise
            self.notices.append(f"There is no new backup of {self.path}: {error}.")
        except OSError as error:
            self.notices.append(f"There is no new backup of {self.path}: {error.strerror}.")

    def _heal(self, error: sqlite3.Error) -> bool:
        """Look anew at a database that seems damaged, mend what is, and open it; False when nothing was wrong.

        A disk that failed once to read a page gives the same error as a page that is wrong.
        """
        self._disconnect()
        verdict = examine(self.path)
        if verdict == "damaged":
            self._replace(str(error))
        elif verdict == "index":
            rebuild_indexes(self.path)
            self.notices.append(
                f"The index of words in {self.path} was damaged, and was made anew; nothing is lost."
            )
        self._connect()
        return verdict != "whole"

    def _replace(self, reason: str) -> None:
        """Move the database aside and put the last backup in its place."""
        self._disconnect()
        aside, backup = files.replace_damaged(self.path)
        if backup is None:
            then = "There was no backup, so a new one was begun."
        else:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(backup.stat().st_mtime))
            then = f"The backup of {when} took its place."
        self.notices.append(
            f"The conversations in {self.path} are damaged ({reason}); they are now {aside}. {then}"
        )

    def _checkpoint(self, at_least: int) -> None:
        log = self.path.with_name(self.path.name + "-wal")
        if self._connection is None or not log.exists() or log.stat().st_size <= at_least:
            return
        mode = "PASSIVE" if at_least else "TRUNCATE"
        self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_damage(error):
                raise self._after_damage(error) from error
            ours = explain(error, self.path)
            if ours is None:
                raise
            raise ours from error
        except OSError as error:
            raise explain_os(error, self.path) from error

    def _after_damage(self, error: sqlite3.Error) -> LocalLLMError:
        try:
            with alone(self.path):
                mended = self._heal(error)
        except (OSError, sqlite3.Error, LocalLLMError) as second:
            self._disconnect()
            reason = second.strerror if isinstance(second, OSError) else second
            return DatabaseUnusable(
                f"The conversations in {self.path} seem damaged ({error}), and could not be mended: {reason}.",
                "Try again; if it stays, move the file away, or set LLM_LOCAL_HOME.",
            )
        if mended:
            return DatabaseUnusable(self.notices[-1])
        return StorageError(f"{self.path} could not be read ({error}), but seems whole.", "Try again.")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _contains_all(text: str, words: str) -> bool:
    """True when all `words`, a JSON list in lower case, are in a text; for words too short for the index."""
    folded = text.casefold()
    return all(word in folded for word in json.loads(words))
