"""Norms and gated activations of the native library against float64, through the step that computes them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from kernel_matrices import gaussian
from kernel_stores import Store, segments_of
from llm_local.kernels.layout import (
    LlmActivation,
    LlmBatch,
    LlmLayer,
    LlmLinear,
    LlmModel,
    LlmNorm,
    LlmWeightKind,
)
from llm_local.kernels.library import Native

WIDTHS = [1, 5, 16, 64, 77, 896, 1536]
ACTIVATIONS: dict[LlmActivation, Callable[[torch.Tensor], torch.Tensor]] = {
    LlmActivation.SILU: functional.silu,
    # written so that their tails do not cancel, as torch's own do
    LlmActivation.GELU_TANH: lambda x: x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)),
    LlmActivation.GELU: lambda x: x * torch.special.erfc(-x / math.sqrt(2)) / 2,
    LlmActivation.RELU: functional.relu,
}
HEAD_DIM = 4


def one_layer(
    kernels: Native,
    x: torch.Tensor,
    final_norm: tuple[torch.Tensor, float],
    head: torch.Tensor,
    *,
    activation: int = LlmActivation.SILU,
    mlp: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None,
    threads: int = 2,
) -> torch.Tensor:
    """The logits of a float32 decoder of one layer whose attention gives zeros, for tokens embedded as `x`.

    So they are head(norm(x + down(activation(gate(x)) * up(x)))); without `mlp` the sum is x.
    """
    tokens, hidden = x.shape
    mlp = mlp or (torch.zeros(1, hidden), torch.zeros(1, hidden), torch.zeros(hidden, 1))
    zeros, zero_output = torch.zeros(HEAD_DIM, hidden), torch.zeros(hidden, HEAD_DIM)

    def linear(weight: torch.Tensor) -> LlmLinear:
        return LlmLinear(LlmWeightKind.F32, *weight.shape, 0, weight.data_ptr(), None)

    gate, up, down = mlp
    layer = LlmLayer(
        query=linear(zeros),
        key=linear(zeros),
        value=linear(zeros),
        output=linear(zero_output),
        gate=linear(gate),
        up=linear(up),
        down=linear(down),
        rope=-1,
        attention_scale=1.0,
    )
    weight, eps = final_norm
    model = LlmModel(
        num_layers=1,
        hidden=hidden,
        heads=1,
        kv_heads=1,
        head_dim=HEAD_DIM,
        intermediate=gate.shape[0],
        vocab=head.shape[0],
        activation=activation,
        embedding_scale=1.0,
        residual_scale=1.0,
        logit_scale=1.0,
        embedding=linear(x),
        final_norm=LlmNorm(weight.data_ptr(), eps, 0),
        head=linear(head),
        layers=ctypes.pointer(layer),
    )
    logits = torch.full((tokens, head.shape[0]), torch.nan)
    rows = (ctypes.c_int32 * tokens)(*range(tokens))
    store = Store.poisoned(1, tokens, HEAD_DIM)
    segments = segments_of([[store]], [0], [tokens])
    batch = LlmBatch(rows, segments, rows, logits.data_ptr(), tokens, 1, tokens)
    kernels.step(model, batch, kernels.new_scratch(), threads)
    return logits


def norm(
    kernels: Native, x: torch.Tensor, weight: torch.Tensor, eps: float, threads: int = 2
) -> torch.Tensor:
    """The final norm of rows, read by a head that changes nothing."""
    return one_layer(kernels, x, (weight, eps), torch.eye(x.shape[1]), threads=threads)


def gated(
    kernels: Native, activation: LlmActivation, gate: torch.Tensor, up: torch.Tensor, power: int = 20
) -> torch.Tensor:
    """activation(gate) * up, to the bit: a row holds gate, up and zeros, where the feed-forward part puts its result.

    The norm after it divides by 2^power and multiplies with it, for rows whose squares are far below 4^power.
    """
    width = gate.shape[1]
    identity, nothing = torch.eye(width), torch.zeros(width, width)
    mlp = (
        torch.cat([identity, nothing, nothing], 1),
        torch.cat([nothing, identity, nothing], 1),
        torch.cat([nothing, nothing, identity]),
    )
    row = torch.cat([gate, up, torch.zeros_like(gate)], 1)
    plain = (torch.full((3 * width,), 2.0**power), 4.0**power)
    head = torch.cat([nothing, nothing, identity], 1)
    return one_layer(kernels, row, plain, head, activation=activation, mlp=mlp)


def exact_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.double()
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_norm_is_as_near_as_its_dtype(kernels: Native, width: int) -> None:
    x, weight = gaussian(9, width, scale=3.0), gaussian(width, seed=1)
    exact = exact_norm(x, weight, 1e-6)
    assert torch.allclose(norm(kernels, x, weight, 1e-6).double(), exact, rtol=2e-6, atol=0)


def test_a_row_does_not_notice_the_rows_beside_it(kernels: Native) -> None:
    x, weight = gaussian(40, 333), gaussian(333, seed=1)
    whole = norm(kernels, x, weight, 1e-5)
    for row in (0, 17, 39):
        assert torch.equal(norm(kernels, x[row : row + 1], weight, 1e-5, threads=1)[0], whole[row])


def test_a_row_of_zeros_stays_zero(kernels: Native) -> None:
    assert torch.equal(norm(kernels, torch.zeros(2, 48), torch.ones(48), 1e-6), torch.zeros(2, 48))


@pytest.mark.parametrize("activation", LlmActivation)
@pytest.mark.parametrize("width", [1, 30, 257])
def test_a_gated_activation_is_as_near_as_torchs(
    kernels: Native, activation: LlmActivation, width: int
) -> None:
    gate, up = gaussian(3, width, scale=4.0), gaussian(3, width, seed=1)
    exact = ACTIVATIONS[activation](gate.double()) * up.double()
    assert torch.allclose(gated(kernels, activation, gate, up).double(), exact, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("activation", LlmActivation)
def test_activations_hold_over_their_whole_range(kernels: Native, activation: LlmActivation) -> None:
    """Tails included: what is nearly nothing keeps its leading digits."""
    gate = torch.cat([torch.linspace(-14, 14, 19998), torch.tensor([0.0, -0.0])]).view(-1, 50)
    exact = ACTIVATIONS[activation](gate.double())
    near = gated(kernels, activation, gate, torch.ones_like(gate)).double()
    assert torch.allclose(near, exact, rtol=4e-5, atol=1e-30)
    middle = gate.abs() < 4
    assert torch.allclose(near[middle], exact[middle], rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("activation", LlmActivation)
def test_what_is_large_passes_an_activation_or_is_gone(kernels: Native, activation: LlmActivation) -> None:
    gate = torch.tensor([[-1e4, 1e4, 1e14, -1e14]])
    near = gated(kernels, activation, gate, torch.ones_like(gate), power=63)
    assert torch.allclose(near, torch.relu(gate), rtol=1e-6, atol=1e-20)


@pytest.mark.parametrize("activation", LlmActivation)
def test_not_a_number_stays_visible(kernels: Native, activation: LlmActivation) -> None:
    for row in ([1.0, torch.nan], [torch.nan, -2.0]):
        gate = torch.tensor([row])
        assert gated(kernels, activation, gate, torch.ones(1, 2)).isnan().all()
        assert norm(kernels, gate, torch.ones(2), 1e-6).isnan().all()
