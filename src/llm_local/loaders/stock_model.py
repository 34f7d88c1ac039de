"""A loaded model with torch's own low-bit layers in the place of its linear layers, where there is no native code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from llm_local.kernels.stock import StockEmbedding, StockInt4Linear, StockInt8Linear, quantize_rows
from llm_local.loaders.finite_weights import is_finite
from llm_local.loaders.packing import BadWeights, Part, plan
from llm_local.specs import PackedBits

__all__ = ["use_stock_layers"]


def use_stock_layers(
    model: Any, bits: PackedBits, release: Callable[[torch.Tensor], None] = lambda tensor: None
) -> None:
    """Quantize a CPU model in place, layer by layer, by the same plan as native code; the rest becomes float32.

    Raises:
        BadWeights: a weight is infinite or not a number.
    """
    for source in plan(model, bits):
        part = source.part
        tensor = source.rows(0, part.shape[0] if part.shape else 1)
        if not is_finite(tensor):
            raise BadWeights(part.names[0])
        if part.is_packed:
            _replace(model, part, tensor)
            release(tensor)
        else:
            value = tensor.to(part.dtype)
            for name in part.names:
                path, _, leaf = name.rpartition(".")
                owner = model.get_submodule(path)
                if leaf in owner._buffers:
                    owner._buffers[leaf] = value
                else:
                    owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)


def _replace(model: Any, part: Part, weight: torch.Tensor) -> None:
    shared = quantize_rows(weight) if part.format == "int8" else None
    for name in part.names:
        path = name.rpartition(".")[0]
        old = model.get_submodule(path)
        if shared is None:
            new: nn.Module = StockInt4Linear(old)
        elif isinstance(old, nn.Embedding):
            new = StockEmbedding(old, shared, float(getattr(old, "scalar_embed_scale", 1.0)))
        else:
            new = StockInt8Linear(old, shared)
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, new)
