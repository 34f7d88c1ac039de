"""Contents from somewhere to the disk: resumed, verified, and never under their final name before that.

How bytes travel is the caller's business (`Opener`); this module knows files and digests.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from llm_local.errors import ModelCorrupt, StorageError
from llm_local.locks import locked
from llm_local.store.digests import RunningDigest, file_matches
from llm_local.store.retries import Retries, TransientError

__all__ = [
    "Body",
    "Opener",
    "Pace",
    "Place",
    "RemoteFile",
    "check_room",
    "download",
    "free_bytes",
    "is_plausible",
    "open_local",
    "storage_errors",
    "sync_folder",
]

_ROOM_TO_SPARE_BYTES: Final = 64 << 20
_COUNTS_AS_PROGRESS_BYTES: Final = 1 << 20
_COUNTS_AS_SMALL_BYTES: Final = 16 << 20
_READ_BYTES: Final = 1 << 20
# Less than this in that time, in seconds, is no download: it is a connection that only pretends to live.
_SLOWEST_BYTES: Final = 64 << 10
_SLOWEST_WINDOW_S: Final = 60.0


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


@dataclass(frozen=True, slots=True)
class Place:
    """Where contents come to lie, where they lie on their way, and the lock of whoever brings them."""

    final: Path
    part: Path
    lock: Path

    def missing_bytes(self, file: RemoteFile) -> int:
        """How much of `file` is not there yet; 0 where its size is not known."""
        if file.size is None or self.final.exists():
            return 0
        return max(0, file.size - _length(self.part))


def free_bytes(folder: Path) -> int:
    """The room on the disk of `folder`, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_room(folder: Path, need_bytes: int) -> None:
    """See that the disk of `folder` has room.

    Raises:
        StorageError: it has not; both numbers are in the message.
    """
    free = free_bytes(folder)
    if need_bytes and need_bytes + _ROOM_TO_SPARE_BYTES > free:
        raise StorageError(
            f"The download needs {_size(need_bytes)}, but only {_size(free)} are free on the disk of {folder}.",
            "Free some space, or point HF_HOME at a larger disk.",
        )


@contextmanager
def storage_errors(folder: Path, remedy: str = "Point HF_HOME at a folder you can write.") -> Iterator[None]:
    """Turn what the disk refuses into a StorageError that names the place; `remedy` helps where it is not full."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"The disk refused to store the model: {error.strerror or error} ({error.filename or folder}).",
            "Free some space; what was downloaded is kept." if full else remedy,
        ) from error


def download(
    place: Place, file: RemoteFile, opener: Opener, retries: Retries, on_bytes: Callable[[int], None]
) -> Path:
    """Have the contents of `file` at `place.final`, and return that.

    One process fetches, others that want the same wait for it and watch. `on_bytes` is told how many bytes are there.

    Raises:
        ModelCorrupt: what came is not what the hub promised, twice (kind `integrity_failed`).
        HubUnavailable: all tries failed. What came so far stays for the next run.
        OSError: the disk refused.
    """
    final = place.final
    final.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.lock, lambda: on_bytes(_length(place.part))):
        if not (final.exists() and is_plausible(file, final)):
            _Part(file, place.part, opener, on_bytes).complete(retries).replace(final)
            sync_folder(final.parent)
    on_bytes(final.stat().st_size)
    return final


class _Part:
    """A file on its way. It is digested while it comes; what an earlier run left is read once before."""

    def __init__(self, file: RemoteFile, path: Path, opener: Opener, on_bytes: Callable[[int], None]) -> None:
        self._file = file
        self._path = path
        self._open = opener
        self._on_bytes = on_bytes
        self._farthest = 0
        self._running: RunningDigest | None = None

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
            if self._is_right():
                return self._path
            # Old bytes under new ones, or a flip on the way: one clean start is fair, a second one would be a loop.
            self._path.unlink()
            self._running = None
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
        self._digest_up_to(have)  # before the hub is asked: it would not wait so long
        with self._open(have) as body, open(self._path, "r+b" if have else "wb") as out:
            out.seek(body.start)
            out.truncate()
            self._digest_up_to(body.start)
            have = self._take(body, out, retries)
            out.flush()
            os.fsync(out.fileno())
        if self._file.size is not None and have < self._file.size:
            raise TransientError(f"{self._file.name} broke off after {have} of {self._file.size} bytes")

    def _take(self, body: Body, out: BinaryIO, retries: Retries) -> int:
        """Write what comes, and return how much of the file is there then."""
        have, pace = body.start, Pace(self._file.name)
        for chunk in body.chunks:
            out.write(chunk)
            have += len(chunk)
            if self._running is not None:
                self._running.feed(chunk)
            self._on_bytes(have)
            if have - self._farthest >= _COUNTS_AS_PROGRESS_BYTES:
                self._farthest = have
                retries.progressed()
            if self._file.size is not None and have > self._file.size:
                break  # more than promised, which is refused when it is verified
            pace.moved(len(chunk))
        return have

    def _digest_up_to(self, position: int) -> None:
        """Have digested just what the part begins with."""
        if self._file.size is None or (self._running is not None and self._running.position == position):
            return
        self._running = RunningDigest(self._file.digest, self._file.size)
        if position:
            self._running.feed_file(self._path, position)

    def _is_right(self) -> bool:
        size = _length(self._path)
        if self._running is None or self._running.position != size:
            return _is_right(self._file, self._path)
        return size == self._file.size and self._running.matches()


class Pace:
    """Sees that bytes keep coming."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._since_s = time.monotonic()
        self._num_bytes = 0

    def moved(self, num_bytes: int) -> None:
        """Note what came.

        Raises:
            TransientError: it is next to nothing.
        """
        self._num_bytes += num_bytes
        now = time.monotonic()
        if now - self._since_s < _SLOWEST_WINDOW_S:
            return
        if self._num_bytes < _SLOWEST_BYTES:
            raise TransientError(f"{self._name} comes too slowly ({self._num_bytes} bytes in a minute)")
        self._since_s, self._num_bytes = now, 0


def is_plausible(file: RemoteFile, path: Path) -> bool:
    """True for contents that were verified once and look untouched: by digest where small, else by size."""
    small = file.size is not None and file.size <= _COUNTS_AS_SMALL_BYTES
    return _is_right(file, path) if small else file.size in (None, _length(path))


def open_local(path: Path) -> Opener:
    """Opens contents that lie on this disk already."""

    @contextmanager
    def open_at(offset: int) -> Iterator[Body]:
        with open(path, "rb") as data:
            data.seek(offset)
            yield Body(offset, iter(lambda: data.read(_READ_BYTES), b""))

    return open_at


def _is_right(file: RemoteFile, path: Path) -> bool:
    """True when the contents at `path` have the size and the digest the hub gives for `file`."""
    return file.size in (None, _length(path)) and file_matches(path, file.digest)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut.

    Raises:
        OSError: the disk refused.
    """
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
