"""Packed weights on the disk, so that a model is packed once; and what its starts found out, in files like theirs.

    <home>/packed/<key>.pack     one model, packed one way; its time of change says when it was last used
                  <key>.part     the same while it is made; locked by whoever makes it
                  <name>.lock    locked by whoever makes it, from before it reads the model

A key is made of all that the contents depend on, so nothing is ever stale: it is only not found. Whoever uses a file
holds a shared lock on it, and what is locked is never deleted.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from llm_local.loaders.packed_file import DamagedPack, PackedTensors, Write, open_packed, write_packed
from llm_local.loaders.packing import Layout
from llm_local.locks import LockTimeout, locked, try_lock

__all__ = ["CacheUnusable", "PackedCache"]

logger = logging.getLogger(__name__)

_SPARE_BYTES: Final = 512 << 20  # left free on the disk
_PATIENCE_S: Final = 600.0


class CacheUnusable(Exception):
    """Nothing can be kept; the text completes "Packed weights are not kept: …" for people."""


class PackedCache:
    """The packed files of all models, at most `limit_bytes` of them."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit = limit_bytes

    def find(self, key: str) -> PackedTensors | None:
        """The tensors kept under a key, or None. A damaged file is deleted, and the log says so."""
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                if not try_lock(file, shared=True):  # about to be deleted
                    return None
                found = open_packed(file, key)  # the lock lasts as long as the mapping
        except OSError:  # not there, or nobody can lock it
            return None
        except DamagedPack as error:
            logger.warning("%s cannot be used and is made anew: %s", path.name, error)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return found

    def has(self, key: str) -> bool:
        """Whether there is a file under this key; only `find` knows whether it can be used."""
        return self._path(key).exists()

    @contextmanager
    def turn(
        self, name: str, on_wait: Callable[[], None] = lambda: None, *, waits: bool = True
    ) -> Iterator[None]:
        """Be the only one who makes what `name` says (the key of a model); waits while another process does.

        Raises:
            CacheUnusable: the directory cannot be written, or the other one takes too long.
        """
        patience_s = _PATIENCE_S if waits else 0
        with ExitStack() as stack:
            try:
                self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                stack.enter_context(locked(self._path(name, ".lock"), on_wait, patience_s=patience_s))
            except LockTimeout:
                raise CacheUnusable("another process is still at it") from None
            except OSError as error:
                raise CacheUnusable(f"{error.strerror or error} ({self._folder})") from error
            yield

    def store(
        self,
        key: str,
        parts: Layout,
        fill: Callable[[Write], None],
        facts: Mapping[str, Any] = MappingProxyType({}),
        spared: str = "",
    ) -> PackedTensors:
        """Write the tensors that `fill` makes, within a `turn`, and return them as `find` would. `facts` is JSON.

        Nothing makes room for them that is in use, nor what the key `spared` has.

        Raises:
            CacheUnusable: there is no room for them, or the disk fails.
        """
        part = self._path(key, ".part")
        try:
            self._remove_leftovers()
            self._make_room(parts.num_bytes, spared)
            with open(part, "w+b", opener=_for_its_owner) as file:
                if not try_lock(file):
                    raise CacheUnusable(f"another process clears up in {self._folder}")
                write_packed(file, key, parts, fill, facts)
                part.replace(self._path(key))
        except OSError as error:
            raise CacheUnusable(f"{error.strerror or error} ({self._folder})") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        found = self.find(key)
        if found is None:
            raise CacheUnusable(f"what was written to {self._folder} reads back otherwise")
        return found

    def _path(self, key: str, ending: str = ".pack") -> Path:
        return self._folder / f"{key}{ending}"

    def _remove_leftovers(self) -> None:
        """What an interrupted run left: nobody has it locked."""
        for path in self._folder.glob("*.part"):
            with suppress(OSError), open(path, "rb") as file:
                if try_lock(file):
                    path.unlink()

    def _make_room(self, num_bytes: int, spared: str) -> None:
        if num_bytes > self._limit:
            raise CacheUnusable(
                f"they take {num_bytes >> 20} MiB, and PACKED_CACHE_MB allows {self._limit >> 20}"
            )
        kept = sorted((path.stat().st_mtime, path) for path in self._folder.glob("*.pack"))
        excess = sum(path.stat().st_size for _, path in kept) + num_bytes - self._limit
        for _, path in kept:
            if excess <= 0:
                break
            if path == self._path(spared):
                continue
            with suppress(OSError), open(path, "rb") as file:
                if try_lock(file):  # nobody uses it
                    excess -= path.stat().st_size
                    path.unlink()
        if excess > 0:
            raise CacheUnusable("the models in use fill PACKED_CACHE_MB")
        free = shutil.disk_usage(self._folder).free
        if free < num_bytes + _SPARE_BYTES:
            raise CacheUnusable(f"the disk has {free >> 20} MiB free ({self._folder})")


def _for_its_owner(path: str, flags: int) -> int:
    """Open a file that nobody else may write, whatever the umask: what is in it is believed to the last pointer."""
    return os.open(path, flags, 0o644)
