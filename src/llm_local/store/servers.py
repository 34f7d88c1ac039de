"""The servers that run on this machine: each says so itself, and whoever looks removes what the dead have left.

    <state home>/servers/<port>-<pid>.json

A server holds a lock on its file for as long as it runs. The system frees it however the process ends, so the lock is
the truth: a file that nobody holds is one of a server that is gone. Where a file system has no locks, number and start
of the process decide.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llm_local.home import state_home
from llm_local.locks import POLL_S, try_lock
from llm_local.store.processes import process_start, terminate

__all__ = [
    "Registration",
    "RunningServer",
    "ask_to_stop",
    "running_servers",
    "servers_folder",
    "wait_until_gone",
]

logger = logging.getLogger(__name__)

_ENDING: Final = ".json"
_MAX_BYTES: Final = 1 << 16
_LOOKS: Final = 5


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What a server says about itself.

    - `process_start`: tells its process from a later one with the same number.
    - `model`: None while none is loaded; `memory_bytes` is what it takes.
    - `started`, `keep_alive_until`: seconds since 1970; the latter is when the model is unloaded, None for never.
    """

    host: str
    port: int
    pid: int
    process_start: str
    started: float
    model: str | None = None
    memory_bytes: int | None = None
    keep_alive_until: float | None = None

    @property
    def is_visible(self) -> bool:
        """True when its process can be seen from here; one in another container cannot."""
        return process_start(self.pid) == self.process_start


def servers_folder() -> Path:
    """Where servers say that they run."""
    return state_home() / "servers"


class Registration:
    """A server of this process, on the list for as long as this context lasts. Use it from one thread.

    Processes made by a bare fork keep the lock with their parent; they must end with it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        model: str | None = None,
        memory_bytes: int | None = None,
        keep_alive_until: float | None = None,
    ) -> None:
        pid = os.getpid()
        self.server = RunningServer(
            host, port, pid, process_start(pid) or "", time.time(), model, memory_bytes, keep_alive_until
        )
        self._handle: int | None = None

    def __enter__(self) -> Registration:
        self._publish()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            _path(self.server).unlink(missing_ok=True)
        self._release(None)

    def update(
        self, *, model: str | None, memory_bytes: int | None = None, keep_alive_until: float | None = None
    ) -> None:
        """Say which model is loaded now.

        Raises:
            OSError: the disk refuses; what was said before stays.
        """
        self.server = dataclasses.replace(
            self.server, model=model, memory_bytes=memory_bytes, keep_alive_until=keep_alive_until
        )
        self._publish()

    def _publish(self) -> None:
        """Write the whole of it under another name, lock it, and only then give it its name."""
        folder = _private(servers_folder())
        handle, fresh = _locked_file(folder)
        try:
            os.write(handle, json.dumps(dataclasses.asdict(self.server)).encode())
            os.fsync(handle)
            os.replace(fresh, _path(self.server))
        except BaseException:
            os.close(handle)
            with suppress(OSError):
                os.unlink(fresh)
            raise
        self._release(handle)

    def _release(self, instead: int | None) -> None:
        handle, self._handle = self._handle, instead
        if handle is not None:
            os.close(handle)


def running_servers() -> list[RunningServer]:
    """All servers that run now, by port. Removes the files of those that are gone."""
    try:
        names = sorted(entry.name for entry in servers_folder().iterdir())
    except OSError:
        return []
    found = [_look(servers_folder() / name) for name in names]
    return sorted((one for one in found if one is not None), key=lambda one: (one.port, one.pid))


def ask_to_stop(server: RunningServer) -> None:
    """Have a server finish what it has begun and end; a second time, have it end at once.

    Raises:
        ProcessLookupError: its process is gone, or cannot be seen from here; nobody was signaled.
        PermissionError: it belongs to somebody else.
    """
    if server.pid <= 1:  # of nobody's making but a forger's; kill(2) takes 0 and -1 for many
        raise ProcessLookupError(server.pid)
    terminate(server.pid, server.process_start)


def wait_until_gone(
    server: RunningServer, patience_s: float, *, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Wait until a server runs no more; False when it still does after `patience_s` seconds."""
    end = time.monotonic() + patience_s
    while _look(_path(server)) is not None:
        if time.monotonic() >= end:
            return False
        sleep(POLL_S)
    return True


def _path(server: RunningServer) -> Path:
    return servers_folder() / f"{server.port}-{server.pid}{_ENDING}"


def _private(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)  # the mode of mkdir is less what umask takes, and the folder may be an old one
    return folder


def _locked_file(folder: Path) -> tuple[int, str]:
    """A new file that only we can read, locked, and its name, which is on no list yet."""
    for _ in range(_LOOKS):
        handle, fresh = tempfile.mkstemp(dir=folder, prefix=".")
        try:
            held = try_lock(handle)
        except OSError:  # no locks here: the number of the process has to do
            held = True
        if held and os.fstat(handle).st_nlink:
            return handle, fresh
        os.close(handle)  # somebody tidied it away before it was locked
        with suppress(OSError):
            os.unlink(fresh)
    raise OSError(f"{folder} is being emptied all the time")


def _look(path: Path) -> RunningServer | None:
    """The server that `path` is of; None, and no file any more, where it is gone."""
    for _ in range(_LOOKS):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            free = _is_free(handle)
            server = _read(handle, path) if path.suffix == _ENDING else None
            if free is None:
                free = server is None or not server.is_visible
            if not free:
                return server
            if _is_still(handle, path):
                with suppress(OSError):
                    path.unlink()
                return None
        finally:
            os.close(handle)
        # The server has just said something new, in a new file of that name.
    return None


def _is_free(handle: int) -> bool | None:
    """True when nobody holds the lock of an open file; None where there are no locks."""
    try:
        return try_lock(handle, shared=True)
    except OSError:
        return None


def _is_still(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def _read(handle: int, path: Path) -> RunningServer | None:
    """What a file says; None where it is not what a server writes."""
    try:
        found = json.loads(os.read(handle, _MAX_BYTES))
        return RunningServer(**{name: _checked(name, found[name]) for name in _FIELDS})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning("%s is not what a server of llm-local writes: %s", path, error)
        return None


_TEXT: Final = (str,)
_NUMBER: Final = (int, float)
_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "host": _TEXT,
    "port": (int,),
    "pid": (int,),
    "process_start": _TEXT,
    "started": _NUMBER,
    "model": (str, type(None)),
    "memory_bytes": (int, type(None)),
    "keep_alive_until": (*_NUMBER, type(None)),
}


def _checked(name: str, value: Any) -> Any:
    if type(value) not in _FIELDS[name]:  # and so no bool is a number
        raise TypeError(f"{name} is {value!r}")
    if name == "pid" and int(value) <= 1:
        raise ValueError(f"pid is {value}")
    return value
