"""Linear layers of every kind of weights: how near to exact, and that a token's result is its own."""

from __future__ import annotations

import pytest
import torch

from kernel_matrices import (
    KINDS,
    PACKED_KINDS,
    Matrix,
    gaussian,
    matrix,
    multiply,
)
from llm_local.errors import EngineError
from llm_local.kernels.layout import LlmWeightKind
from llm_local.kernels.library import Native, native
from llm_local.kernels.linear import PackedEmbedding

SHAPES = [(1, 1), (17, 33), (16, 64), (5, 65), (40, 31), (100, 1100), (33, 2100)]
MOST_TOKENS = 40


def quantized(x: torch.Tensor) -> torch.Tensor:
    """`x` as the packed kernels see it: int8 per token and group of 32 inputs; float64."""
    padded = torch.nn.functional.pad(x.double(), (0, -x.shape[1] % 32)).reshape(len(x), -1, 32)
    scale = padded.abs().amax(-1, keepdim=True) / 127
    steps = torch.where(scale > 0, padded / scale, 0.0)
    return ((steps.round() * scale).reshape(len(x), -1))[:, : x.shape[1]]


def inputs_of(kind: LlmWeightKind, x: torch.Tensor) -> torch.Tensor:
    """`x` rounded as `kind` multiplies it, in float64."""
    if kind in PACKED_KINDS:
        return quantized(x)
    return (x.bfloat16() if kind == LlmWeightKind.BF16 else x).double()


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_the_unpacked_weights(
    kernels: Native, kind: LlmWeightKind, rows: int, cols: int
) -> None:
    bias = gaussian(rows, seed=2)
    layer = matrix(kernels, kind, gaussian(rows, cols, scale=0.02), bias)
    x = gaussian(3, cols, seed=1)
    (y,) = multiply(kernels, [layer], x)
    weights, exact_x = kernels.unpack(layer.linear).double(), inputs_of(kind, x)
    exact = exact_x @ weights.T + bias
    # Every float32 operation is off by at most 2^-24 of the terms it sums, of which there are no more than inputs.
    # A quant on the edge of two may fall to the other side: one step of one input, 1/127 of the largest.
    terms = exact_x.abs() @ weights.abs().T + bias.abs()
    allowed = terms * (cols + 4) * 2.0**-24
    if kind in PACKED_KINDS:
        allowed += weights.abs().amax() * x.abs().amax() * 2.0**-16
    assert ((y - exact).abs() <= allowed).all()


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_token_has_the_same_bits_alone_and_among_any_number(
    kernels: Native, kind: LlmWeightKind, rows: int, cols: int
) -> None:
    layer = matrix(kernels, kind, gaussian(rows, cols, scale=0.02), gaussian(rows, seed=2))
    x = gaussian(MOST_TOKENS, cols, seed=1)
    alone = torch.cat([multiply(kernels, [layer], x[t : t + 1])[0] for t in range(MOST_TOKENS)])
    assert alone.isfinite().all()
    for tokens in range(2, MOST_TOKENS + 1):
        (together,) = multiply(kernels, [layer], x[:tokens], threads=1 + tokens % 2)
        assert torch.equal(together, alone[:tokens]), f"{tokens} tokens"


@pytest.mark.parametrize("kind", KINDS)
def test_hundreds_of_tokens_and_two_threads_change_no_bit(kernels: Native, kind: LlmWeightKind) -> None:
    layer = matrix(kernels, kind, gaussian(70, 700, scale=0.02))
    x = gaussian(300, 700, seed=1)
    (one,) = multiply(kernels, [layer], x, threads=1)
    (two,) = multiply(kernels, [layer], x, threads=2)
    assert torch.equal(one, two)
    for start in (0, 100, 299):
        assert torch.equal(multiply(kernels, [layer], x[start : start + 1])[0], one[start : start + 1])


def test_parts_of_every_kind_give_what_each_gives_alone(kernels: Native) -> None:
    kinds = [*KINDS, *KINDS, *reversed(KINDS)]
    parts = [matrix(kernels, kind, gaussian(9 + i, 130, seed=i)) for i, kind in enumerate(kinds)]
    x = gaussian(5, 130, seed=99)
    for part, y in zip(parts, multiply(kernels, parts, x), strict=True):
        assert torch.equal(y, multiply(kernels, [part], x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_inputs_give_the_rounded_outputs_of_float32(kernels: Native, kind: LlmWeightKind) -> None:
    parts = [matrix(kernels, kind, gaussian(rows, 100, seed=rows), gaussian(rows)) for rows in (20, 33)]
    x = gaussian(19, 100, seed=1).bfloat16()
    exact = multiply(kernels, parts, x.float())
    for y, wide in zip(multiply(kernels, parts, x, threads=2), exact, strict=True):
        assert torch.equal(y, wide.bfloat16())


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_zero_and_of_any_size(kernels: Native, kind: LlmWeightKind) -> None:
    layer = matrix(kernels, kind, gaussian(20, 96))
    x = gaussian(4, 96, seed=1)
    (y,) = multiply(kernels, [layer], x)
    (zero,) = multiply(kernels, [layer], torch.zeros(4, 96))
    assert not zero.any()
    for power in (-40, 40):  # a power of two changes nothing but the exponent
        (scaled,) = multiply(kernels, [layer], x * 2.0**power)
        assert torch.equal(scaled, y * 2.0**power)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_an_input_that_is_not_finite_shows_in_its_token_only(
    kernels: Native, kind: LlmWeightKind, bad: float
) -> None:
    layer = matrix(kernels, kind, gaussian(20, 96))
    x = gaussian(20, 96, seed=1)
    (good,) = multiply(kernels, [layer], x)
    x[7, 40] = bad
    (y,) = multiply(kernels, [layer], x)
    assert not y[7].isfinite().any()
    others = torch.arange(20) != 7
    assert torch.equal(y[others], good[others])


def test_no_tokens_and_no_parts_are_nothing_to_do(kernels: Native) -> None:
    layer = matrix(kernels, LlmWeightKind.Q4, gaussian(8, 64))
    assert multiply(kernels, [layer], torch.zeros(0, 64))[0].shape == (0, 8)
    assert multiply(kernels, [], torch.zeros(2, 64)) == []


def test_parts_of_different_widths_are_refused(kernels: Native) -> None:
    parts = [matrix(kernels, LlmWeightKind.Q8, gaussian(8, cols)) for cols in (64, 96)]
    with pytest.raises(EngineError, match="do not fit its weights"):
        multiply(kernels, parts, torch.zeros(1, 64))


def outputs_by_variant(library: Native, layer: Matrix, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The outputs of each variant that this CPU can run."""
    before = library.variant
    outputs = {}
    for name in library.variants:
        library.use_variant(name)
        outputs[name] = multiply(library, [layer], x)[0]
    library.use_variant(before)
    return outputs


@pytest.mark.parametrize("tokens", [1, 21])
@pytest.mark.parametrize("kind", KINDS)
def test_variants_agree_to_rounding_and_the_fused_ones_exactly(kind: LlmWeightKind, tokens: int) -> None:
    library = native()
    if library is None:
        pytest.skip("no native kernels here")
    layer = matrix(library, kind, gaussian(50, 1100, scale=0.02))
    x = gaussian(tokens, 1100, seed=1)
    outputs = outputs_by_variant(library, layer, x)
    first = outputs[library.variants[0]]
    for y in outputs.values():
        assert torch.allclose(y, first, rtol=0, atol=2e-6)
    fused = [y for name, y in outputs.items() if name != "portable"]
    if kind in PACKED_KINDS:  # exact integers, then the same float32 operations in the same order
        assert all(torch.equal(y, fused[0]) for y in fused)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_without_outputs_gives_none(kernels: Native, kind: LlmWeightKind, threads: int) -> None:
    empty, full = matrix(kernels, kind, torch.zeros(0, 70)), matrix(kernels, kind, gaussian(20, 70))
    x = gaussian(5, 70, seed=1)
    nothing, something = multiply(kernels, [empty, full], x, threads)
    assert nothing.shape == (5, 0)
    assert torch.equal(something, multiply(kernels, [full], x)[0])


@pytest.mark.parametrize("tokens", [1, 3, 20, 150])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_without_inputs_gives_its_bias(kernels: Native, kind: LlmWeightKind, tokens: int) -> None:
    bias = gaussian(21)
    (y,) = multiply(kernels, [matrix(kernels, kind, torch.zeros(21, 0), bias)], torch.zeros(tokens, 0))
    assert torch.equal(y, bias.expand(tokens, 21))


@pytest.mark.parametrize("token", [-1, -40, 33, 47, 48])
def test_a_packed_embedding_has_no_rows_beyond_its_own(kernels: Native, token: int) -> None:
    table = gaussian(33, 70)  # the last strip of 16 rows has room for 48
    held = matrix(kernels, LlmWeightKind.Q8, table)
    embedding = PackedEmbedding(held.memory, 33, 70)
    assert torch.equal(embedding(torch.arange(33)), kernels.unpack(held.linear))
    assert embedding(torch.empty(2, 0, dtype=torch.long)).shape == (2, 0, 70)
    with pytest.raises(EngineError, match="outside the embedding of 33 rows"):
        embedding(torch.tensor([[3, token]]))
