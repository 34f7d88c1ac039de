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
        self._tables: list[tuple[torch.Tensor, torch.Tensor]] = []
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
        num_positions = -(-wanted // ROPE_POSITIONS) * ROPE_POSITIONS
        # All or nothing: a struct that pointed to the tables of a failed attempt would point to freed memory.
        tables = [self._computed(num_positions, layer_type) for layer_type in self._types]
        for struct, (cos, sin) in zip(self.structs, tables, strict=True):
            struct.cos, struct.sin = cos.data_ptr(), sin.data_ptr()
            struct.dim, struct.interleaved = cos.shape[-1], self._interleaved
        self._tables, self._num_positions = tables, num_positions

    def _computed(self, num_positions: int, layer_type: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, `[positions, dim]` each."""
        named = {} if layer_type is None else {"layer_type": layer_type}
        like = torch.empty(1, dtype=torch.float32)
        with torch.inference_mode():
            cos, sin = self._module(like, torch.arange(num_positions)[None], **named)
            return self._laid_out(cos[0]), self._laid_out(sin[0])

    def _laid_out(self, table: torch.Tensor) -> torch.Tensor:
        """`[positions, dim]`, each number beside the element it multiplies. Modules give two equal halves."""
        if self._interleaved:
            table = table[:, : table.shape[1] // 2].repeat_interleave(2, dim=1)
        return table.float().contiguous()
