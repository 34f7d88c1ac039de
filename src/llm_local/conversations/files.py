"""The files of a database and who may read them: made for their owner alone, and never through a planted link."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from llm_local.errors import DatabaseUnusable

__all__ = [
    "backup_age_s",
    "backups_of",
    "create",
    "drop_backups",
    "is_emptied",
    "is_whole",
    "open_lock",
    "replace_damaged",
    "sweep",
    "tighten",
    "write_backup",
]

_SIDES: Final = ("-wal", "-shm", "-journal")
_PRIVATE: Final = 0o600


def tighten(path: Path) -> None:
    """See that a database and what lies beside it are files that nobody else can read.

    Raises:
        DatabaseUnusable: something is there that is no file.
        OSError: the disk refuses.
    """
    for file in (path, *_beside(path)):
        try:
            mode = file.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "no file"
            raise DatabaseUnusable(f"{file} is {kind}, and is not followed.", "Remove it.")
        # Never open and close a database to look at it: that would free the locks that SQLite holds on it.
        if stat.S_IMODE(mode) != _PRIVATE:
            file.chmod(_PRIVATE)


def create(path: Path) -> None:
    """Make an empty database where there is none.

    Raises:
        OSError: the disk refuses.
    """
    if path.exists():
        return
    for side in _beside(path):
        side.unlink(
            missing_ok=True
        )  # the log of a database that was removed would be played back into the new one
    os.close(_create(path))


def sweep(path: Path) -> None:
    """Remove what a process left that was killed while it wrote a copy. To be called by who holds the lock.

    Raises:
        OSError: the disk refuses.
    """
    for left in path.parent.glob(f".{path.name}*.new*"):
        left.unlink(missing_ok=True)


def open_lock(path: Path) -> int:
    """The file whose lock a process holds while it writes to a database, made with its folder where it is missing.

    Raises:
        OSError: the disk refuses, or a link was planted.
    """
    _make_private_folder(path.parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path.with_name(f"{path.name}.lock"), flags, _PRIVATE)


def is_emptied(path: Path) -> bool:
    """True for a database that was cut to nothing, though something was once worth a backup."""
    return (
        path.exists()
        and path.stat().st_size == 0
        and not _side(path, "-wal").exists()
        and bool(backups_of(path))
    )


def replace_damaged(path: Path) -> tuple[Path, Path | None]:
    """Put the newest whole backup, or else an empty file, in the place of a damaged database.

    The damaged one, with what belongs to it, gets another name, for somebody to look at. A process that is killed here
    leaves the damaged one in its place or the new one, never nothing.

    Returns:
        The new name of the damaged database, and the backup, or None where there was none.

    Raises:
        OSError: the disk refuses.
    """
    aside = _name_aside(path)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        backup = next((one for one in backups_of(path) if is_whole(one)), None)
        with open(_create(fresh), "wb") as target:
            if backup is not None:
                with open(backup, "rb") as source:
                    shutil.copyfileobj(source, target)
        for side in _SIDES:
            with suppress(FileNotFoundError):
                _side(path, side).rename(_side(aside, side))
        try:
            os.link(path, aside)
        except OSError:  # a disk without links
            path.rename(aside)
        _publish(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return aside, backup


def _name_aside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    return aside


def backups_of(path: Path) -> list[Path]:
    """The backups of a database, the newest first."""
    found = [
        one for one in path.parent.glob(f"{path.name}.backup*") if one.is_file() and not one.is_symlink()
    ]
    return sorted(found, key=lambda one: one.stat().st_mtime, reverse=True)


def backup_age_s(path: Path) -> float | None:
    """Seconds since the last backup; None where there is none. A clock that was set back makes it old."""
    found = backups_of(path)
    if not found:
        return None
    age = time.time() - found[0].stat().st_mtime
    return age if age >= 0 else float("inf")


def drop_backups(path: Path) -> None:
    """Remove all backups: what was deleted would live on in them.

    Raises:
        OSError: the disk refuses.
    """
    for backup in backups_of(path):
        backup.unlink(missing_ok=True)


def write_backup(connection: sqlite3.Connection, path: Path, version: int | None = None) -> None:
    """Copy a database that is open into its backup, or into the one of a schema `version`; whole or not at all.

    Raises:
        OSError: the disk refuses.
        sqlite3.Error: the same, or the database is damaged.
    """
    backup = path.with_name(f"{path.name}.backup" + (f"-schema{version}" if version is not None else ""))
    fresh = path.with_name(f".{backup.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        os.close(_create(fresh))  # SQLite fills an empty file, and would make one that others can read
        connection.execute("VACUUM INTO ?", (str(fresh),))
        _publish(fresh, backup)
    finally:
        fresh.unlink(missing_ok=True)


def is_whole(backup: Path) -> bool:
    """True for a database that can be read throughout. It must not be one that anybody has open."""
    # Nothing is written, not even beside it.
    try:
        with closing(
            sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as opened:
            return bool(opened.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.Error:
        return False


def _publish(fresh: Path, path: Path) -> None:
    handle = os.open(fresh, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(folder)


def _create(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags, _PRIVATE)


def _make_private_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing; umask can only take away. One that is there stays as it is."""
    if not folder.is_dir():
        _make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _beside(path: Path) -> list[Path]:
    return [_side(path, side) for side in _SIDES]


def _side(path: Path, side: str) -> Path:
    return path.with_name(path.name + side)
