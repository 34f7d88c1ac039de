"""What a measurement was taken on, and how noisy it was there."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

from llm_local.bench.peers.process import HelperProcess, own_environment

__all__ = ["BUSY_PERCENT", "Machine", "ReadProbe", "peak_rss_bytes", "this_machine"]

BUSY_PERCENT: Final = 15.0
_LOOK_S: Final = 0.5


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


class ReadProbe:
    """How fast `num_threads` threads read memory just now. A round in which it is slower was disturbed."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads
        self._process = HelperProcess(sys.executable, "llm_local.bench.peers.bandwidth", own_environment())

    def bytes_per_s(self) -> float:
        """Measure for a fraction of a second."""
        return float(self._process.ask(threads=self._num_threads)["bytes_per_s"])

    def close(self) -> None:
        """End its process."""
        self._process.close()


def peak_rss_bytes(pid: int | None = None) -> int:
    """The most memory that a process (this one by default) has held so far, mapped files that it read included.

    Where the system keeps no such record of other processes, what it holds now.
    """
    try:
        lines = Path(f"/proc/{pid or 'self'}/status").read_text().splitlines()
    except OSError:  # not Linux
        if pid is None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024
        return int(psutil.Process(pid).memory_info().rss)
    # Not ru_maxrss: a child inherits its parent's.
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _cpu_name(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
