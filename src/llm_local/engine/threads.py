"""How many CPU threads a forward pass is worth.

Waking a second thread for an operator costs more than a small operator itself, and with a busy neighbor on its
core the others wait for it: a 4 M parameter model decoded 6 to 18 times slower on two threads than on one.
"""

from __future__ import annotations

from typing import Any

import torch

from llm_local.loaders.weight_count import count_weights

__all__ = ["threads_for", "threads_for_bytes", "use_threads"]

# Below this the weights of a layer lie in the caches of one core, and one core is fastest.
ONE_THREAD_BYTES = 64 * 2**20

_DEFAULT_THREADS = torch.get_num_threads()


def threads_for(model: Any) -> int:
    """Threads for one forward pass of `model`: one for a small model, else what torch was started with."""
    _, weight_bytes = count_weights(model)  # packed weights are no parameters
    return threads_for_bytes(weight_bytes)


def threads_for_bytes(weight_bytes: int) -> int:
    """Threads for one forward pass over weights of that size."""
    return 1 if weight_bytes <= ONE_THREAD_BYTES else _DEFAULT_THREADS


def use_threads(num_threads: int) -> None:
    """Make torch use `num_threads` from here on; the setting is the process's, so each forward states its own."""
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)
