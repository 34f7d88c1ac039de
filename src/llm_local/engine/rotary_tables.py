"""The numbers of a model's rotary embedding, position by position, for the native step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from llm_local.kernels.layout import LlmRope

__all__ = ["Rotation", "RotaryTables", "read_rotation"]

# Rotary tables grow by at least so many positions.
ROPE_POSITIONS: Final = 1024
# Where a model's own module is asked whether its numbers are these.
_SAMPLES: Final = (*range(130), 511, 1023, 4095, 4096, 10_007, 32_767, 65_521, 131_071)


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotary embedding: each pair of elements turns by `position * inv_freq`; the result times `scaling`.

    `inv_freq` are numbers of float32, one for each pair. Whatever stretches a context (linear, llama3, yarn, a part of
    a head) is in them already.
    """

    inv_freq: tuple[float, ...]
    scaling: float

    def tables(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines `[positions, 2 pairs]`, two equal halves, in the operations of transformers' modules."""
        angles = positions[:, None].float() * torch.tensor(self.inv_freq, dtype=torch.float32)
        both = torch.cat((angles, angles), dim=-1)
        return both.cos() * self.scaling, both.sin() * self.scaling


def read_rotation(module: Any, layer_type: str | None) -> Rotation | None:
    """The rotation of a transformers module, for layers of this type where it tells them apart.

    None when the module computes anything else, to the last bit, at a sample of positions.
    """
    before, named = ("", {}) if layer_type is None else (f"{layer_type}_", {"layer_type": layer_type})
    inv_freq = getattr(module, f"{before}inv_freq", None)
    if not isinstance(inv_freq, torch.Tensor):
        return None
    scaling = float(getattr(module, f"{before}attention_scaling", 1.0))
    rotation = Rotation(tuple(inv_freq.float().tolist()), scaling)
    positions = torch.tensor(_SAMPLES)
    with torch.inference_mode():
        theirs = module(torch.empty(1, dtype=torch.float32), positions[None], **named)
        ours = rotation.tables(positions)
    if all(torch.equal(one[0].float(), other) for one, other in zip(theirs, ours, strict=True)):
        return rotation
    return None


class RotaryTables:
    """Cosines and sines of every position so far; `structs` point to the newest tables, one for each rotation.

    `interleaved`: neighbors are rotated with each other, not halves.
    """

    def __init__(self, rotations: Sequence[Rotation], *, interleaved: bool) -> None:
        self.rotations = tuple(rotations)
        self.interleaved = interleaved
        self._tables: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._num_positions = 0
        self.structs = (LlmRope * len(self.rotations))()
        self.reach(1)

    def reach(self, position: int) -> None:
        """Tables for all positions below `position`."""
        if position <= self._num_positions:
            return
        wanted = max(position, 2 * self._num_positions)
        num_positions = -(-wanted // ROPE_POSITIONS) * ROPE_POSITIONS
        # All or nothing: a struct that pointed to the tables of a failed attempt would point to freed memory.
        tables = [self._computed(rotation, num_positions) for rotation in self.rotations]
        for struct, (cos, sin) in zip(self.structs, tables, strict=True):
            struct.cos, struct.sin = cos.data_ptr(), sin.data_ptr()
            struct.dim, struct.interleaved = cos.shape[-1], int(self.interleaved)
        self._tables, self._num_positions = tables, num_positions

    def _computed(self, rotation: Rotation, num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = rotation.tables(torch.arange(num_positions))
        return self._laid_out(cos), self._laid_out(sin)

    def _laid_out(self, table: torch.Tensor) -> torch.Tensor:
        """`[positions, dim]`, each number beside the element it multiplies."""
        if self.interleaved:
            table = table[:, : table.shape[1] // 2].repeat_interleave(2, dim=1)
        return table.contiguous()
