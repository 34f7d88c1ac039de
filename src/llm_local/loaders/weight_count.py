"""How large a model in memory is, whatever its layers are."""

from __future__ import annotations

from typing import cast

from torch import nn

__all__ = ["count_weights"]


def count_weights(model: nn.Module) -> tuple[int, int]:
    """How many numbers a model's weights are, and how many bytes they take; what is shared counts once."""
    found: dict[int, tuple[int, int]] = {}
    for module in model.modules():
        if hasattr(module, "num_weights"):  # packed: its buffers stand for so many numbers
            buffers = list(module.buffers(recurse=False))
            found[buffers[0].data_ptr()] = (cast(int, module.num_weights), sum(one.nbytes for one in buffers))
    for parameter in model.parameters():
        found[id(parameter)] = (parameter.numel(), parameter.nbytes)
    return sum(numbers for numbers, _ in found.values()), sum(size for _, size in found.values())
