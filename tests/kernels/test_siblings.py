"""Layers of one input are computed together, with the bits they have alone, and never for the wrong input."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from llm_local.kernels import linear
from llm_local.kernels.layout import LlmWeightKind
from llm_local.kernels.linear import NativeLinear, adopt_linears, release_linears
from llm_local.kernels.siblings import Siblings
from tiny_models import packed_variant, random_prompt


class Attention(nn.Module):
    """Three projections of one width in, as architectures have them, and one that reads something else."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(64, 96), nn.Linear(64, 32)
        self.v_proj, self.o_proj = nn.Linear(64, 32, bias=False), nn.Linear(64, 64)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each call of the library computed."""
    found: list[int] = []
    real = linear._outputs

    def counted(layers: Sequence[Any], x: torch.Tensor) -> list[torch.Tensor]:
        found.append(len(layers))
        return real(layers, x)

    monkeypatch.setattr(linear, "_outputs", counted)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_call_has_the_bits_of_three(dtype: torch.dtype, calls: list[int]) -> None:
    block = Attention().to(dtype)
    layers = [block.q_proj, block.k_proj, block.v_proj]
    for tokens in (1, 5, 40):
        x = torch.randn(1, tokens, 64).to(dtype)
        alone = [NativeLinear(layer)(x) for layer in layers]
        adopt_linears(block)
        calls.clear()
        together = [block.q_proj(x), block.k_proj(x), block.v_proj(x)]
        assert calls == [3]
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
        assert [one.shape[-1] for one in together] == [96, 32, 32]
        release_linears(block)


def test_nothing_is_kept_when_all_have_been_asked(calls: list[int]) -> None:
    block = Attention()
    adopt_linears(block)
    siblings = block.q_proj.siblings
    assert isinstance(siblings, Siblings) and block.o_proj.siblings is None
    for _ in range(2):
        x = torch.randn(2, 64)
        for layer in (block.v_proj, block.q_proj, block.k_proj):
            layer(x)
        assert (siblings._input, siblings._waiting) == (None, {})
    assert calls == [3, 3]


def test_the_same_input_again_is_computed_again(calls: list[int]) -> None:
    block = Attention()
    adopt_linears(block)
    x = torch.randn(2, 64)
    first = [layer(x) for layer in (block.q_proj, block.k_proj, block.v_proj)]
    x.mul_(2)
    second = [layer(x) for layer in (block.q_proj, block.k_proj, block.v_proj)]
    assert calls == [3, 3]
    assert not torch.equal(first[0], second[0])


def test_layers_that_turn_out_to_read_different_inputs_are_parted(calls: list[int]) -> None:
    """As in cross-attention: queries of one text, keys and values of another."""
    block = Attention()
    adopt_linears(block)
    here, there = torch.randn(2, 64), torch.randn(3, 64)
    expected = torch.nn.functional.linear(there, block.k_proj.weight, block.k_proj.bias)
    block.q_proj(here)
    assert torch.allclose(block.k_proj(there), expected, atol=1e-5)
    assert all(layer.siblings is None for layer in (block.q_proj, block.k_proj, block.v_proj))
    block.v_proj(there)
    assert calls == [3, 1, 1]


def test_packed_layers_are_joined_and_parted_too(calls: list[int]) -> None:
    model = packed_variant("cohere", LlmWeightKind.Q8)
    ids = torch.tensor([random_prompt(7)])
    with torch.inference_mode():
        alone = model(input_ids=ids, use_cache=False).logits
        assert set(calls) == {1}
        calls.clear()
        adopt_linears(model)
        together = model(input_ids=ids, use_cache=False).logits
        assert {2, 3} <= set(calls)
        calls.clear()
        release_linears(model)
        model(input_ids=ids, use_cache=False)
    assert torch.equal(alone, together)
    assert set(calls) == {1}


def test_layers_of_different_widths_are_no_siblings() -> None:
    block = Attention()
    block.k_proj = nn.Linear(32, 32)
    adopt_linears(block)
    assert block.q_proj.siblings is None
    release_linears(block)


def test_a_copy_of_a_model_computes_from_its_own_weights() -> None:
    block = Attention()
    adopt_linears(block)
    x = torch.randn(2, 64)
    expected = block.q_proj(x).clone()
    copied = copy.deepcopy(block)
    block.q_proj.weight.data.zero_()
    assert torch.equal(copied.q_proj(x), expected)
    assert copied.q_proj.siblings is not block.q_proj.siblings
