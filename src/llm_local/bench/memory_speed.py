"""How fast memory can be read here, measured in a moment: what the speed of a model is told from before it is here."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

__all__ = ["memory_bytes_per_s"]

# More than most caches hold, and little enough to be had anywhere.
_BYTES: Final = 192 << 20
_MEASURE_S: Final = 0.1


def memory_bytes_per_s() -> float:
    """Bytes a second that all cores of this process read together, the best of a tenth of a second.

    Raises:
        MemoryError: there is not even room for the buffer.
    """
    # Late: its import is slow, and only who asks pays for it.
    import numpy

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pieces = numpy.array_split(numpy.ones(_BYTES // 8, numpy.uint64), cores)
    best = 0.0
    with ThreadPoolExecutor(cores) as pool:
        end = time.perf_counter() + _MEASURE_S
        while not best or time.perf_counter() < end:
            began = time.perf_counter()
            list(pool.map(numpy.bitwise_or.reduce, pieces))
            best = max(best, _BYTES / (time.perf_counter() - began))
    return best
