"""Files that people name: written whole or not at all, never over something unasked and never through a link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llm_local.errors import InvalidRequest, StorageError

__all__ = ["read_file", "write_file"]


def write_file(path: Path, text: str, *, may_overwrite: Callable[[], bool] = lambda: False) -> None:
    """Write a file for its owner alone. `may_overwrite` is asked when there is one already.

    Raises:
        InvalidRequest: it is a link or no file, or is there and may not be overwritten.
        StorageError: the disk refuses; what was there is still there.
    """
    data = text.encode()
    try:
        overwrite = _may_replace(path, may_overwrite)
        fresh = path.with_name(f".{path.name[:100]}.{os.getpid()}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(fresh, flags, 0o600), "wb") as out:
            try:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
                _put(fresh, path, overwrite=overwrite)
            finally:
                fresh.unlink(missing_ok=True)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        hint = "Free some space." if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose another place."
        raise StorageError(f"Cannot write {path}: {_reason(error)}.", hint) from error
    except ValueError as error:  # a name with a NUL, which no file has
        raise InvalidRequest(f"{str(path)!r} cannot be the name of a file.", param="file") from error


def read_file(path: Path, max_bytes: int) -> bytes:
    """The contents of a file.

    Raises:
        InvalidRequest: it is not there, is no file, or is larger than `max_bytes`.
        StorageError: the disk refuses.
    """
    try:
        # A pipe without a writer would be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise InvalidRequest(f"{path} is not a file.", param="file")
            data = source.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise InvalidRequest(f"There is no file {path}.", param="file") from error
    except IsADirectoryError as error:
        raise InvalidRequest(f"{path} is a folder.", param="file") from error
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {_reason(error)}.") from error
    except ValueError as error:
        raise InvalidRequest(f"{str(path)!r} cannot be the name of a file.", param="file") from error
    if len(data) > max_bytes:
        raise InvalidRequest(f"{path} is too large: at most {max_bytes >> 20} MB.", param="file")
    return data


def _may_replace(path: Path, may_overwrite: Callable[[], bool]) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(mode):
        raise InvalidRequest(f"{path} is a link, and is not followed.", "Choose another name.", param="file")
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no plain file"
        raise InvalidRequest(f"{path} is {kind}.", "Choose another name.", param="file")
    if not may_overwrite():
        raise _exists(path)
    return True


def _put(fresh: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        with suppress(OSError):
            os.link(fresh, path, follow_symlinks=False)
            return
        if path.is_symlink() or path.exists():  # it came while we wrote
            raise FileExistsError(path)
    fresh.replace(path)  # also where the disk has no links


def _exists(path: Path) -> InvalidRequest:
    return InvalidRequest(
        f"{path} is there already.", "Choose another name, or allow to overwrite it.", param="file"
    )


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
