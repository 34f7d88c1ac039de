"""Weight matrices of every kind as the native library takes them, for the tests of its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llm_local.kernels.layout import LlmLinear, LlmWeightKind
from llm_local.kernels.library import Native

KINDS = tuple(LlmWeightKind)
PACKED_KINDS = (LlmWeightKind.Q8, LlmWeightKind.Q4)


@dataclass
class Matrix:
    """A `[rows, cols]` matrix of some kind, and the memory that its struct points to."""

    linear: LlmLinear
    memory: torch.Tensor
    bias: torch.Tensor | None


def aligned_bytes(count: int) -> torch.Tensor:
    """`count` bytes at a 64-byte boundary, none of them zero."""
    memory = torch.full((count + 64,), 0xA5, dtype=torch.uint8)
    start = -memory.data_ptr() % 64
    return memory[start : start + count]


def matrix(
    library: Native, kind: LlmWeightKind, weights: torch.Tensor, bias: torch.Tensor | None = None
) -> Matrix:
    """`weights` (float32) as `kind`."""
    rows, cols = weights.shape
    if kind in PACKED_KINDS:
        memory = aligned_bytes(library.packed_bytes(kind, rows, cols))
        assert library.pack(kind, weights, memory)
    else:
        memory = weights.to(torch.bfloat16 if kind == LlmWeightKind.BF16 else torch.float32).contiguous()
    pointer = bias.data_ptr() if bias is not None else None
    return Matrix(LlmLinear(kind, rows, cols, 0, memory.data_ptr(), pointer), memory, bias)


def multiply(
    library: Native, parts: Sequence[Matrix], x: torch.Tensor, threads: int = 1
) -> list[torch.Tensor]:
    """Each part's outputs `[tokens, rows]` for `x` `[tokens, cols]`."""
    outputs = [torch.full((x.shape[0], part.linear.rows), torch.nan, dtype=x.dtype) for part in parts]
    library.linear([part.linear for part in parts], x.contiguous(), outputs, threads)
    return outputs


def unpacked(library: Native, kind: LlmWeightKind, weights: torch.Tensor) -> torch.Tensor:
    """What is left of `weights` (float32) as `kind`."""
    held = matrix(library, kind, weights)
    return library.unpack(held.linear)


def gaussian(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """Normally distributed float32 numbers, the same for the same arguments."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
