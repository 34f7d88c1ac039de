"""The rotary tables of the native step: the model's own numbers, grown as needed, never pointing to what is gone."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from torch import nn

from llm_local.engine.families import FAMILIES
from llm_local.engine.rotary_tables import RotaryTables, Rotation, read_rotation
from tiny_models import ARCHITECTURES, tiny_model

ROTATIONS = (Rotation((1.0, 0.5), 1.0), Rotation((2.0, 0.25), 1.5))


def pointed_to(address: int, positions: int) -> torch.Tensor:
    """The table at an address, `[positions, 4]`."""
    data = bytearray(ctypes.string_at(address, positions * 4 * 4))
    return torch.frombuffer(data, dtype=torch.float32).view(positions, 4)


def test_tables_that_could_not_grow_stay_as_they_were_and_grow_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = RotaryTables(ROTATIONS, interleaved=False)
    before = [(struct.cos, struct.sin) for struct in tables.structs]
    real = Rotation.tables

    def failing(self: Rotation, positions: torch.Tensor) -> Any:
        if self is ROTATIONS[1]:
            raise MemoryError
        return real(self, positions)

    with monkeypatch.context() as patch:
        patch.setattr(Rotation, "tables", failing)
        with pytest.raises(MemoryError):
            tables.reach(5000)
    assert [(struct.cos, struct.sin) for struct in tables.structs] == before
    tables.reach(5000)
    for rotation, struct in zip(ROTATIONS, tables.structs, strict=True):
        angles = torch.arange(5000)[:, None] * torch.tensor(rotation.inv_freq * 2)
        assert torch.allclose(pointed_to(struct.cos, 5000), angles.cos() * rotation.scaling, atol=1e-6)
        assert torch.allclose(pointed_to(struct.sin, 5000), angles.sin() * rotation.scaling, atol=1e-6)


def test_interleaved_tables_have_each_number_twice_in_a_row() -> None:
    halves, neighbors = (RotaryTables(ROTATIONS[:1], interleaved=one) for one in (False, True))
    by_half, by_neighbor = (pointed_to(one.structs[0].cos, 8) for one in (halves, neighbors))
    assert torch.equal(by_neighbor, by_half[:, [0, 0, 1, 1]])


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() & ARCHITECTURES.keys()))
def test_the_numbers_are_those_of_the_models_own_module_everywhere(name: str) -> None:
    """Not only where `read_rotation` looks."""
    decoder = tiny_model(name).get_decoder()
    types = sorted(set(decoder.config.layer_types)) if FAMILIES[name].rope_by_layer_type else [None]
    positions = torch.arange(3000)
    for layer_type in types:
        rotation = read_rotation(decoder.rotary_emb, layer_type)
        assert rotation is not None
        named = {} if layer_type is None else {"layer_type": layer_type}
        theirs = decoder.rotary_emb(torch.empty(1), positions[None], **named)
        for expected, actual in zip(theirs, rotation.tables(positions), strict=True):
            assert torch.equal(expected[0].float(), actual)


class Foreign(nn.Module):
    """Turns the other way from some position on."""

    def __init__(self) -> None:
        super().__init__()
        self.inv_freq = torch.tensor([1.0, 0.5])

    def forward(self, like: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[..., None].float() * self.inv_freq
        angles = torch.where(angles > 50_000, -angles, angles)
        both = torch.cat((angles, angles), dim=-1)
        return both.cos(), both.sin()


def test_a_module_that_computes_something_else_is_not_taken() -> None:
    assert read_rotation(Foreign(), None) is None
    assert read_rotation(nn.Identity(), None) is None
