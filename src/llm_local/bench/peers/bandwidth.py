"""How fast memory can be read: what decoding waits for. Asked through `serving.py`, so that its buffer is not ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

__all__ = ["answer"]

# More than the caches of this machine keep of it, as long as other machines do not share them.
_BYTES = 512 << 20
_READS = 5


def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bytes a second that `threads` threads read together, the median of a few times over a large buffer."""
    # Late, as everywhere outside the engine: its import is slow.
    import numpy

    threads = int(asked["threads"])
    pieces = numpy.array_split(_buffer(), threads)
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_READS):
            began = time.perf_counter()
            list(pool.map(numpy.bitwise_or.reduce, pieces))
            seconds.append(time.perf_counter() - began)
    return {"bytes_per_s": _BYTES / sorted(seconds)[_READS // 2]}


@cache
def _buffer() -> Any:
    # Late: see above.
    import numpy

    return numpy.ones(_BYTES // 8, numpy.uint64)
