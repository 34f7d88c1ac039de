"""Contents from somewhere into the cache: resumed, verified, and never under their final name before that.

How bytes travel is the caller's business (`Opener`); this module knows files and digests.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_local.errors import ModelCorrupt, StorageError
from llm_local.store.locks import locked
from llm_local.store.retries import Retries, TransientError
from llm_local.store.snapshots import RepoCache

__all__ = ["Body", "Opener", "RemoteFile", "check_room", "download", "storage_errors"]

_ROOM_TO_SPARE_BYTES: Final = 64 << 20
_COUNTS_AS_PROGRESS_BYTES: Final = 1 << 20
_COUNTS_AS_SMALL_BYTES: Final = 16 << 20
_READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a model on the hub.

    `digest` is a sha256 (64 hex digits) or the sha1 git gives a blob (40), or "" where the hub tells none; `key` names
    the contents in the cache.
    """

    name: str
    size: int | None
    digest: str
    key: str


@dataclass(frozen=True, slots=True)
class Body:
    """The answer to "bytes from `offset` on": where it really starts, and the bytes."""

    start: int
    chunks: Iterator[bytes]


Opener = Callable[[int], AbstractContextManager[Body]]
"""Opens a file at an offset in bytes; raises TransientError or a typed error."""


def check_room(folder: Path, need_bytes: int) -> None:
    """See that the disk of `folder` has room.

    Raises:
        StorageError: it has not; both numbers are in the message.
    """
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if need_bytes and need_bytes + _ROOM_TO_SPARE_BYTES > free:
        raise StorageError(
            f"The download needs {_size(need_bytes)}, but only {_size(free)} are free on the disk of {folder}.",
            "Free some space, or point HF_HOME at a larger disk.",
        )


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a StorageError that names the place."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"The disk refused to store the model: {error.strerror or error} ({error.filename or folder}).",
            "Free some space; what was downloaded is kept."
            if full
            else "Point HF_HOME at a folder you can write.",
        ) from error


def download(
    repo: RepoCache, file: RemoteFile, opener: Opener, retries: Retries, on_bytes: Callable[[int], None]
) -> Path:
    """Have the contents of `file` in the cache and return where they lie.

    One process fetches, others that want the same wait for it and watch. `on_bytes` is told how many bytes are there.

    Raises:
        ModelCorrupt: what came is not what the hub promised, twice (kind `integrity_failed`).
        HubUnavailable: all tries failed. What came so far stays for the next run.
        OSError: the disk refused.
    """
    blob = repo.blob(file.key)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with locked(repo.lock(file.key), lambda: on_bytes(_length(repo.part(file.key)))):
        if not (blob.exists() and _is_plausible(file, blob)):
            _Part(file, repo.part(file.key), opener, on_bytes).complete(retries).replace(blob)
            _sync_folder(blob.parent)
    on_bytes(blob.stat().st_size)
    return blob


class _Part:
    """A file on its way."""

    def __init__(self, file: RemoteFile, path: Path, opener: Opener, on_bytes: Callable[[int], None]) -> None:
        self._file = file
        self._path = path
        self._open = opener
        self._on_bytes = on_bytes
        self._farthest = 0

    def complete(self, retries: Retries) -> Path:
        """Fetch what is missing, as often as `retries` allows, and verify the whole."""
        second_chance = True
        while True:
            if self._file.size is not None and _length(self._path) > self._file.size:
                self._path.unlink()
            try:
                if _length(self._path) != self._file.size:
                    self._fetch(retries)
            except TransientError as error:
                retries.wait(error)
                continue
            if _is_right(self._file, self._path):
                return self._path
            # Old bytes under new ones, or a flip on the way: one clean start is fair, a second one would be a loop.
            self._path.unlink()
            if not second_chance:
                raise ModelCorrupt(
                    f"{self._file.name} arrived damaged: its contents are not what the hub promised.",
                    "Try again; if it stays so, do not trust this hub or mirror.",
                    file=self._file.name,
                    kind="integrity_failed",
                )
            second_chance = False

    def _fetch(self, retries: Retries) -> None:
        have = _length(self._path)
        with self._open(have) as body, open(self._path, "r+b" if have else "wb") as out:
            out.seek(body.start)
            out.truncate()
            have = body.start
            for chunk in body.chunks:
                out.write(chunk)
                have += len(chunk)
                self._on_bytes(have)
                if have - self._farthest >= _COUNTS_AS_PROGRESS_BYTES:
                    self._farthest = have
                    retries.progressed()
                if self._file.size is not None and have > self._file.size:
                    return  # more than promised, which is refused when it is verified
            out.flush()
            os.fsync(out.fileno())
        if self._file.size is not None and have < self._file.size:
            raise TransientError(f"{self._file.name} broke off after {have} of {self._file.size} bytes")


def _is_plausible(file: RemoteFile, path: Path) -> bool:
    """True for contents that were verified once and look untouched: by digest where small, else by size."""
    small = file.size is not None and file.size <= _COUNTS_AS_SMALL_BYTES
    return _is_right(file, path) if small else file.size in (None, _length(path))


def _is_right(file: RemoteFile, path: Path) -> bool:
    """True when the contents at `path` have the size and the digest the hub gives for `file`."""
    size = _length(path)
    if file.size is not None and size != file.size:
        return False
    if not file.digest:
        return True
    if len(file.digest) == 64:
        hasher = hashlib.sha256()
    else:  # what git calls a blob; it guards small files against accidents, not against forgers
        hasher = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as data:
        while chunk := data.read(_READ_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest() == file.digest


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot, which is no failure
            raise
    finally:
        os.close(handle)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
