"""Norms and gated activations of the native library against float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from kernel_matrices import gaussian
from llm_local.kernels.layout import LlmActivation
from llm_local.kernels.library import Native

WIDTHS = [1, 5, 16, 64, 77, 896, 1536]
ACTIVATIONS: dict[LlmActivation, Callable[[torch.Tensor], torch.Tensor]] = {
    LlmActivation.SILU: functional.silu,
    # written so that their tails do not cancel, as torch's own do
    LlmActivation.GELU_TANH: lambda x: x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)),
    LlmActivation.GELU: lambda x: x * torch.special.erfc(-x / math.sqrt(2)) / 2,
    LlmActivation.RELU: functional.relu,
}
# One unit in the last place of bfloat16, relative.
BF16_STEP = 2.0**-8


def exact_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.double()
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight.double()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, BF16_STEP)])
def test_a_norm_is_as_near_as_its_dtype(
    kernels: Native, width: int, dtype: torch.dtype, tolerance: float
) -> None:
    x, weight = gaussian(9, width, scale=3.0).to(dtype), gaussian(width, seed=1)
    exact = exact_norm(x, weight, 1e-6)
    assert torch.allclose(kernels.rms_norm(x, weight, 1e-6).double(), exact, rtol=tolerance, atol=0)


def test_a_row_does_not_notice_the_rows_beside_it(kernels: Native) -> None:
    x, weight = gaussian(40, 333), gaussian(333, seed=1)
    whole = kernels.rms_norm(x, weight, 1e-5, threads=2)
    for row in (0, 17, 39):
        assert torch.equal(kernels.rms_norm(x[row : row + 1], weight, 1e-5, threads=1)[0], whole[row])


def test_a_row_of_zeros_stays_zero(kernels: Native) -> None:
    assert torch.equal(kernels.rms_norm(torch.zeros(2, 48), torch.ones(48), 1e-6), torch.zeros(2, 48))


@pytest.mark.parametrize("activation", LlmActivation)
@pytest.mark.parametrize("width", [1, 30, 4097])
def test_a_gated_activation_is_as_near_as_torchs(
    kernels: Native, activation: LlmActivation, width: int
) -> None:
    gate, up = gaussian(3, width, scale=4.0), gaussian(3, width, seed=1)
    exact = ACTIVATIONS[activation](gate.double()) * up.double()
    assert torch.allclose(kernels.gated(activation, gate, up).double(), exact, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("activation", LlmActivation)
def test_activations_hold_over_their_whole_range(kernels: Native, activation: LlmActivation) -> None:
    """Tails included: what is nearly nothing keeps its leading digits, what is large passes."""
    gate = torch.cat([torch.linspace(-14, 14, 20001), torch.tensor([-1e4, 1e4, 1e30, 0.0, -0.0])])
    exact = ACTIVATIONS[activation](gate.double())
    near = kernels.gated(activation, gate, torch.ones_like(gate)).double()
    assert torch.allclose(near, exact, rtol=4e-5, atol=1e-30)
    middle = gate.abs() < 4
    assert torch.allclose(near[middle], exact[middle], rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("activation", LlmActivation)
def test_gated_bfloat16_is_rounded_once(kernels: Native, activation: LlmActivation) -> None:
    gate, up = gaussian(5, 77).bfloat16(), gaussian(5, 77, seed=1).bfloat16()
    exact = ACTIVATIONS[activation](gate.double()) * up.double()
    near = kernels.gated(activation, gate, up)
    assert near.dtype == torch.bfloat16
    assert torch.allclose(near.double(), exact, rtol=BF16_STEP, atol=1e-7)


@pytest.mark.parametrize("activation", LlmActivation)
def test_not_a_number_stays_visible(kernels: Native, activation: LlmActivation) -> None:
    gate = torch.tensor([1.0, torch.nan, -2.0])
    assert kernels.gated(activation, gate, torch.ones(3)).isnan().tolist() == [False, True, False]
    assert kernels.rms_norm(gate[None], torch.ones(3), 1e-6).isnan().all()
