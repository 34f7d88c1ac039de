"""Where things are kept: what lies there, and whether there is room for more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from llm_local.cli.checks.check import Check
from llm_local.config import Config
from llm_local.home import cache_home, state_home
from llm_local.kernels.build import cache_folder as kernels_folder
from llm_local.store.snapshots import cache_folder as models_folder
from llm_local.terminal.sizes import format_bytes

__all__ = ["check_folder", "check_folders", "held_bytes"]

LOW_DISK_BYTES: Final = 5 * 10**9  # less than a small model, its packed weights and room to work
NO_DISK_BYTES: Final = 5 * 10**8  # nothing can be fetched or packed


def check_folders(config: Config) -> Iterator[Check]:
    """Every folder that llm-local writes to."""
    # HF_HOME from the settings reaches the store through the environment
    models = models_folder({**os.environ, **config.hub_environment()})
    yield check_folder("models", models, _models_in(models))
    yield check_folder("packed weights", cache_home() / "packed")
    yield check_folder("kernel cache", kernels_folder())
    yield check_folder("state", state_home())


def check_folder(name: str, folder: Path, holds: str = "") -> Check:
    """Where something is kept. Nothing is written to find out."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    if not os.access(there, os.W_OK) or not there.is_dir():
        mend = f"Make {there} a directory you can write to, or choose another one."
        return Check(name, str(folder), "fail", mend)
    size = held_bytes(folder)
    found = f"{folder}, {format_bytes(size)}{holds}" if folder.exists() else f"{folder}, not there yet"
    free = None
    with suppress(OSError):
        free = shutil.disk_usage(there).free
    if free is None:
        return Check(name, found)
    found += f"; {format_bytes(free)} free"
    if free < LOW_DISK_BYTES:
        mend = "Free some disk space; `llm-local config` shows how to use another disk."
        return Check(name, found, "fail" if free < NO_DISK_BYTES else "warn", mend)
    return Check(name, found)


def held_bytes(folder: Path) -> int:
    """What the files under a folder take, each once; links are not followed, and what cannot be read does not count."""
    return sum(dict(_files(folder)).values())


def _files(folder: Path) -> Iterator[tuple[tuple[int, int], int]]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    yield (stat.st_dev, stat.st_ino), stat.st_size


def _models_in(folder: Path) -> str:
    with suppress(OSError):
        count = sum(entry.name.startswith("models--") for entry in folder.iterdir())
        return f" in {count} model{'' if count == 1 else 's'}"
    return ""
