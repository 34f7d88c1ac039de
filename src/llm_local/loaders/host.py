"""The machine without its accelerators: free memory, and what the processor computes fast. Needs no torch."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

__all__ = ["SMALL_BYTES", "WORKING_BYTES", "computes_bfloat16", "host_bytes", "memory_limit"]

SMALL_BYTES: Final = 256 << 20
"""A model of this size in float32 is run so on a CPU: that costs nothing, and is exact."""
WORKING_BYTES: Final = 64 << 20
"""What a process takes beside the weights: activations of a short prompt and its keys and values."""

_CGROUP: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60  # the first version of cgroups says "no limit" as a huge number


@cache
def computes_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """True when this CPU has instructions for bfloat16 products."""
    try:
        flags = cpuinfo.read_text(errors="replace").split()
    except OSError:  # not Linux: every Mac since the M2 has them, and nothing tells which one this is
        return platform.machine() == "arm64" and platform.system() == "Darwin"
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def host_bytes(available: Callable[[], int] | None = None, cgroup: Path = _CGROUP) -> int:
    """Memory that this process can still take: the machine's, or less where a container is limited."""
    free = psutil.virtual_memory().available if available is None else available()
    limits = [
        (cgroup / "memory.max", cgroup / "memory.current", "inactive_file"),
        (
            cgroup / "memory/memory.limit_in_bytes",
            cgroup / "memory/memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ]
    for limit_file, usage_file, reclaimable_key in limits:
        limit, usage = _number(limit_file), _number(usage_file)
        if limit is not None and usage is not None and limit < _UNLIMITED:
            reclaimable = _statistic(limit_file.with_name("memory.stat"), reclaimable_key)
            free = min(free, max(0, limit - usage + reclaimable))
    return int(free)


def memory_limit(cgroup: Path = _CGROUP) -> int | None:
    """The memory that a container allows all its processes together, in bytes; None where it sets no limit."""
    for file in (cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes"):
        limit = _number(file)
        if limit is not None:
            return limit if limit < _UNLIMITED else None
    return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _statistic(path: Path, key: str) -> int:
    try:
        pairs = (line.split() for line in path.read_text().splitlines())
        return next((int(value) for name, value in pairs if name == key), 0)
    except (OSError, ValueError):
        return 0
