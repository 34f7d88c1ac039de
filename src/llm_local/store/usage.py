"""Who uses a hub model: a lock that everybody shares who has it open, so that nobody deletes it under them.

The lock lies in the hub's cache, where all that share the models share it too. It is empty but for the numbers of the
processes that took it, one a line: they say who is in the way, and decide nothing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from llm_local.errors import Busy, StorageError
from llm_local.locks import try_lock
from llm_local.store.snapshots import RepoCache, cache_folder

__all__ = ["ModelUse", "alone_with", "use_model", "using"]

logger = logging.getLogger(__name__)

_KEY: Final = "in-use"
_MAX_BYTES: Final = 1 << 16
# Whoever comes first is alone for a moment, to tidy up; a removal takes longer.
_PATIENCE_S: Final = 1.0
_POLL_S: Final = 0.01


class ModelUse:
    """A share in a model's lock, for as long as this object lives."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def end(self) -> None:
        """Give the share back."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            with suppress(OSError):
                os.close(handle)

    def __del__(self) -> None:
        self.end()


def use_model(folder: Path) -> ModelUse | None:
    """Keep others from deleting the model that lies in `folder`, when it is one of the hub's.

    None for other folders, which nobody here deletes, and where there are no locks.

    Raises:
        Busy: it is being deleted just now.
    """
    path = _lock_of(folder)
    if path is None:
        return None
    try:
        handle = _open(path)
    except OSError as error:
        logger.debug("%s is used without a lock: %s", folder, error)
        return None
    use = ModelUse(handle)
    try:
        if try_lock(handle):  # nobody else is there, and whoever was is gone
            with suppress(OSError):
                os.ftruncate(handle, 0)
        if not _shares(handle):
            raise Busy("The model is being removed just now.", "Fetch it again afterwards.")
    except OSError as error:
        logger.debug("%s is used without a lock: %s", folder, error)
        return None
    with suppress(OSError):  # opened for reading only, where the cache is somebody else's
        os.write(handle, b"%d\n" % os.getpid())
    return use


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """As `use_model`, for the length of a block."""
    use = use_model(folder)
    try:
        yield
    finally:
        if use is not None:
            use.end()


@contextmanager
def alone_with(repo: RepoCache) -> Iterator[None]:
    """Be the only one who has a hub model, in any of its revisions; where there are no locks, hope so.

    Raises:
        Busy: somebody uses or fetches it (kind `model_in_use`).
        StorageError: the cache cannot be written.
    """
    folder = repo.lock(_KEY).parent
    handles: list[int] = []
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{_KEY}.lock").touch()
            # Beside it lie the locks of those who fetch, one for each of the model's files.
            for path in sorted(folder.glob("*.lock")):
                handles.append(_open(path))
                if not _is_free(handles[-1]):
                    raise _in_use(repo, path, handles[-1])
        except OSError as error:
            raise StorageError(
                f"{repo.ref} cannot be removed: {error.strerror or error} ({error.filename or folder}).",
                "Ask whoever owns the folder.",
            ) from error
        yield
    finally:
        for handle in handles:
            os.close(handle)


def _lock_of(folder: Path) -> Path | None:
    """The lock for a folder that is `<cache>/models--org--name/snapshots/<commit>`, or a name for one."""
    try:
        place, cache = folder.resolve(), cache_folder().resolve()
        root = place.parents[1]
    except (OSError, IndexError, RuntimeError):
        return None
    if place.parent.name != "snapshots" or root.parent != cache:
        return None
    return cache / ".locks" / root.name / f"{_KEY}.lock"


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _shares(handle: int) -> bool:
    """Take a share in the lock; False when somebody keeps it for himself."""
    end = time.monotonic() + _PATIENCE_S
    while not try_lock(handle, shared=True):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    return True


def _is_free(handle: int) -> bool:
    try:
        return try_lock(handle)
    except OSError:  # no locks here: there is nothing to know
        return True


def _in_use(repo: RepoCache, path: Path, handle: int) -> Busy:
    if path.stem != _KEY:
        return Busy(
            f"{repo.ref} is being fetched by another process.",
            "Stop that or wait for it, or remove it with --force.",
            kind="model_in_use",
        )
    pids = [pid for pid in dict.fromkeys(_pids(handle)) if _is_alive(pid)]
    others = [pid for pid in pids if pid != os.getpid()] or pids
    who = " and ".join(f"process {pid}{_command(pid)}" for pid in others) or "another process"
    return Busy(
        f"{repo.ref} is in use by {who}.", "End that first, or remove it with --force.", kind="model_in_use"
    )


def _pids(handle: int) -> list[int]:
    try:
        lines = os.pread(handle, _MAX_BYTES, 0).split()
    except OSError:
        return []
    return [int(line) for line in lines if line.isdigit() and len(line) < 20]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _command(pid: int) -> str:
    """What a process was started as, in parentheses, where the system tells: the program and its script or module."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    names = [word.decode(errors="replace").rpartition("/")[2] for word in words[:3] if word]
    return f" ({' '.join(name for name in names if not name.startswith('-'))})" if names else ""
