"""The rotary tables of the native step: grown as needed, and never pointing to what is gone."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llm_local.engine.families import Family
from llm_local.engine.rotary_tables import RotaryTables

LAYER_TYPES = ["full_attention", "sliding_attention"]


class Rotary:
    """Positions times one frequency for each layer type; fails for `broken`."""

    broken = ""

    def __call__(self, like: torch.Tensor, positions: torch.Tensor, layer_type: str) -> Any:
        if layer_type == self.broken:
            raise MemoryError
        angles = positions[..., None] * torch.ones(4) * (1 + LAYER_TYPES.index(layer_type))
        return angles.cos(), angles.sin()


def pointed_to(address: int, positions: int) -> torch.Tensor:
    """The table at an address, `[positions, 4]`."""
    data = bytearray(ctypes.string_at(address, positions * 4 * 4))
    return torch.frombuffer(data, dtype=torch.float32).view(positions, 4)


def test_tables_that_could_not_grow_stay_as_they_were_and_grow_the_next_time() -> None:
    rotary = Rotary()
    decoder = SimpleNamespace(rotary_emb=rotary, config=SimpleNamespace(layer_types=LAYER_TYPES))
    tables = RotaryTables(decoder, Family(rope_by_layer_type=True))
    before = [(struct.cos, struct.sin) for struct in tables.structs]
    rotary.broken = LAYER_TYPES[1]
    with pytest.raises(MemoryError):
        tables.reach(5000)
    assert [(struct.cos, struct.sin) for struct in tables.structs] == before
    rotary.broken = ""
    tables.reach(5000)
    for layer, struct in enumerate(tables.structs):
        angles = torch.arange(5000)[:, None] * torch.ones(4) * (1 + layer)
        assert torch.allclose(pointed_to(struct.cos, 5000), angles.cos(), atol=1e-6)
        assert torch.allclose(pointed_to(struct.sin, 5000), angles.sin(), atol=1e-6)
