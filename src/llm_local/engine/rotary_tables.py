"""The numbers of a model's rotary embedding, position by position, for the native step."""

from __future__ import annotations

from typing import Any, Final

import torch

from llm_local.engine.families import Family
from llm_local.kernels.layout import LlmRope

__all__ = ["RotaryTables"]

# Rotary tables grow by at least so many positions.
ROPE_POSITIONS: Final = 1024


class RotaryTables:
    """Cosines and sines of every position so far, from the model's own module, so that all scalings are exact."""

    def __init__(self, decoder: Any, family: Family) -> None:
        self._module = decoder.rotary_emb
        self._interleaved = int(family.rope_interleaved)
        self._layer_types = decoder.config.layer_types if family.rope_by_layer_type else [None]
        self._types = sorted(set(self._layer_types), key=str)
        self._tables: list[torch.Tensor] = []
        self._num_positions = 0
        self.structs = (LlmRope * len(self._types))()
        self.reach(1)

    def index(self, layer: int) -> int:
        """Which of `structs` rotates in this layer."""
        return 0 if self._types == [None] else self._types.index(self._layer_types[layer])

    def reach(self, position: int) -> None:
        """Tables for all positions below `position`; the structs point to the newest ones."""
        if position <= self._num_positions:
            return
        wanted = max(position, 2 * self._num_positions)
        self._num_positions = -(-wanted // ROPE_POSITIONS) * ROPE_POSITIONS
        positions = torch.arange(self._num_positions)[None]
        like = torch.empty(1, dtype=torch.float32)
        tables = []
        for struct, layer_type in zip(self.structs, self._types, strict=True):
            named = {} if layer_type is None else {"layer_type": layer_type}
            with torch.inference_mode():
                cos, sin = (self._laid_out(table[0]) for table in self._module(like, positions, **named))
            struct.cos, struct.sin = cos.data_ptr(), sin.data_ptr()
            struct.dim, struct.interleaved = cos.shape[-1], self._interleaved
            tables += [cos, sin]
        self._tables = tables

    def _laid_out(self, table: torch.Tensor) -> torch.Tensor:
        """`[positions, dim]`, each number beside the element it multiplies. Modules give two equal halves."""
        if self._interleaved:
            table = table[:, : table.shape[1] // 2].repeat_interleave(2, dim=1)
        return table.float().contiguous()
