"""Stores of keys and values as the native library takes them, with poison in every place that is nobody's."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llm_local.kernels.layout import LlmKV, LlmSegment


@dataclass
class Store:
    """One layer of one sequence, `[kv_heads, capacity, head_dim]` each; the first place is position `start`."""

    keys: torch.Tensor
    values: torch.Tensor
    start: int = 0

    @classmethod
    def poisoned(
        cls, heads: int, capacity: int, dim: int, dtype: torch.dtype = torch.float32, start: int = 0
    ) -> Store:
        """Room for `capacity` tokens, all of it NaN."""
        keys, values = (torch.full((heads, capacity, dim), torch.nan, dtype=dtype) for _ in range(2))
        return cls(keys, values, start)

    def struct(self) -> LlmKV:
        """The store for the library."""
        return LlmKV(self.keys.data_ptr(), self.values.data_ptr(), self.keys.shape[1], self.start)


def segments_of(
    sequences: Sequence[Sequence[Store]], pasts: Sequence[int], lengths: Sequence[int]
) -> ctypes.Array[LlmSegment]:
    """New tokens of sequences one behind the other; `sequences[i]` are the layers of a sequence."""
    segments, offset = [], 0
    for layers, past, length in zip(sequences, pasts, lengths, strict=True):
        structs = (LlmKV * len(layers))(*(layer.struct() for layer in layers))
        segments.append(LlmSegment(structs, offset, length, past))
        offset += length
    return (LlmSegment * len(segments))(*segments)
