"""The machine: processor, memory, and the clock."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from llm_local.cli.checks.check import Check
from llm_local.terminal.sizes import format_bytes

__all__ = ["check_clock", "check_machine"]

LOW_MEMORY_BYTES: Final = 10**9  # less than a model of a billion weights takes when packed
_DAY_S: Final = 86_400


def check_machine() -> Iterator[Check]:
    """Processor and memory, as far as this process may use them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("machine", f"{platform.platform(terse=True)}, {platform.machine()}, {cores} cores")
    yield _memory()


def check_clock(now: float | None = None, written: float | None = None) -> Check:
    """Whether the clock can be right: it may not be before llm-local's own files were written."""
    now = time.time() if now is None else now
    written = Path(__file__).stat().st_mtime if written is None else written
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < written - _DAY_S:
        found = f"{shown}, which is before llm-local was installed"
        return Check("clock", found, "warn", "Set the clock; the hub's certificates seem wrong until then.")
    return Check("clock", shown)


def _memory() -> Check:
    # Late: the verbs that do not look at the machine start without them.
    import psutil  # type: ignore[import-untyped]

    from llm_local.loaders.host import host_bytes, memory_limit

    memory = psutil.virtual_memory()
    free, limit = host_bytes(), memory_limit()
    found = f"{format_bytes(memory.total)}"
    if limit is not None and limit < memory.total:
        found += f", of which this container may take {format_bytes(limit)}"
    found += f"; {format_bytes(free)} free"
    if free < LOW_MEMORY_BYTES:
        return Check("memory", found, "warn", "Close other programs; only the smallest models fit now.")
    return Check("memory", found)
