"""What a measurement was taken on, and how noisy it was there."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import psutil  # type: ignore[import-untyped]

__all__ = ["BUSY_PERCENT", "Machine", "copy_bytes_per_s", "peak_rss_bytes", "this_machine"]

BUSY_PERCENT: Final = 15.0
_LOOK_S: Final = 0.5
_PROBE_BYTES: Final = 64 << 20
_PROBE_COPIES: Final = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """`load_average` over the last minute; `busy_percent` of all cores together, just now, by other programs."""

    cpu: str
    num_cores: int
    memory_bytes: int
    system: str
    load_average: float
    busy_percent: float

    @property
    def busy(self) -> bool:
        """True when other programs would be measured as well."""
        return self.busy_percent > BUSY_PERCENT


def this_machine() -> Machine:
    """Look at this machine for half a second."""
    return Machine(
        cpu=_cpu_name(Path("/proc/cpuinfo")),
        num_cores=len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else os.cpu_count() or 1,
        memory_bytes=int(psutil.virtual_memory().total),
        system=f"{platform.system()} {platform.machine()}",
        load_average=os.getloadavg()[0],
        busy_percent=float(psutil.cpu_percent(_LOOK_S)),
    )


def copy_bytes_per_s(clock: Callable[[], float] = time.perf_counter) -> float:
    """How fast one thread copies a large buffer, the median of a few times: decoding waits for memory most of all.

    A round in which this is slower than in others was disturbed.
    """
    source = memoryview(bytearray(_PROBE_BYTES))
    target = memoryview(bytearray(_PROBE_BYTES))
    seconds = []
    for _ in range(_PROBE_COPIES):
        began = clock()
        target[:] = source
        seconds.append(clock() - began)
    return _PROBE_BYTES / median(seconds)


def peak_rss_bytes() -> int:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu_name(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
