"""What packing keeps of a matrix, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from kernel_matrices import (
    PACKED_KINDS,
    aligned_bytes,
    gaussian,
    matrix,
    unpacked,
)
from llm_local.errors import EngineError
from llm_local.kernels.layout import LlmLinear, LlmWeightKind
from llm_local.kernels.library import Native, native

Q8, Q4 = LlmWeightKind.Q8, LlmWeightKind.Q4
SMALLEST_HALF = 2.0**-24


def groups_of(weights: torch.Tensor) -> torch.Tensor:
    """`weights` `[rows, cols]` as `[rows, groups, 32]`, padded with zeros."""
    padded = torch.nn.functional.pad(weights, (0, -weights.shape[1] % 32))
    return padded.reshape(len(weights), -1, 32)


@pytest.mark.parametrize(("kind", "most"), [(Q8, 0.0056), (Q4, 0.0820)])
def test_relative_error_on_gaussian_weights(kernels: Native, kind: LlmWeightKind, most: float) -> None:
    weights = gaussian(256, 1024, scale=0.02)
    kept = unpacked(kernels, kind, weights)
    assert (kept - weights).norm() / weights.norm() < most


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e-7, 1e-5, 1e-3, 1.0, 1e3, 3e5])
@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_no_weight_moves_farther_than_its_group_allows(
    kernels: Native, kind: LlmWeightKind, scale: float
) -> None:
    weights = (gaussian(33, 130).clamp(-1, 1)) * scale
    kept = unpacked(kernels, kind, weights)
    largest = groups_of(weights).abs().amax(-1, keepdim=True)
    # Half a step and what rounding the scale to a half adds; a 4-bit scale may also cut the largest weight by a
    # ninth. A scale below the normal halves is rounded up, by less than the smallest half.
    share, steps = (0.5 / 127 + 2.0**-11, 0.5) if kind == Q8 else (0.16, 1.0)
    allowed = largest * share + steps * SMALLEST_HALF
    assert ((groups_of(kept) - groups_of(weights)).abs() <= allowed).all()


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 64), (16, 33), (17, 65), (40, 31), (3, 200)])
@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_a_shape_of_any_size_has_its_own_rows_and_columns(
    kernels: Native, kind: LlmWeightKind, rows: int, cols: int
) -> None:
    """What a matrix keeps of a row depends on nothing but that row."""
    weights = gaussian(rows, cols)
    kept = unpacked(kernels, kind, weights)
    for row in range(rows):
        alone = unpacked(kernels, kind, weights[row : row + 1])
        assert torch.equal(kept[row : row + 1], alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_each_source_type_packs_as_the_same_numbers_in_float32(
    kernels: Native, kind: LlmWeightKind, dtype: torch.dtype
) -> None:
    weights = torch.cat([gaussian(20, 96), gaussian(20, 96, scale=1e-6)]).to(dtype)
    packed = [aligned_bytes(kernels.packed_bytes(kind, 40, 96)) for _ in range(2)]
    assert kernels.pack(kind, weights, packed[0])
    assert kernels.pack(kind, weights.float(), packed[1])
    assert torch.equal(packed[0], packed[1])


@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_rows_of_a_wider_matrix_are_packed_in_place(kernels: Native, kind: LlmWeightKind) -> None:
    wide = gaussian(20, 300)
    packed = [aligned_bytes(kernels.packed_bytes(kind, 20, 96)) for _ in range(2)]
    assert kernels.pack(kind, wide[:, 100:196], packed[0])
    assert kernels.pack(kind, wide[:, 100:196].contiguous(), packed[1])
    assert torch.equal(packed[0], packed[1])


@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_groups_of_zeros_stay_zeros(kernels: Native, kind: LlmWeightKind) -> None:
    weights = gaussian(18, 128)
    weights[3] = 0
    weights[:, 32:64] = 0
    weights[5, 40] = -0.0
    kept = unpacked(kernels, kind, weights)
    assert not kept[3].any()
    assert not kept[:, 32:64].any()
    assert kept[4, :32].any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("row", "col"), [(0, 0), (16, 69), (8, 31)])
@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_a_weight_that_is_not_finite_is_refused(
    kernels: Native, kind: LlmWeightKind, bad: float, row: int, col: int
) -> None:
    packed = aligned_bytes(kernels.packed_bytes(kind, 17, 70))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        weights = gaussian(17, 70).to(dtype)
        assert kernels.pack(kind, weights, packed)
        weights[row, col] = bad
        assert not kernels.pack(kind, weights, packed)


@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_weights_too_large_for_a_half_scale_are_refused_not_cut(kernels: Native, kind: LlmWeightKind) -> None:
    weights = gaussian(4, 64)
    weights[2, 50] = 1e7
    with pytest.raises(EngineError, match="bad_argument"):
        kernels.pack(kind, weights, aligned_bytes(kernels.packed_bytes(kind, 4, 64)))


def test_the_largest_weights_that_can_be_packed_stay_numbers(kernels: Native) -> None:
    """At 4 bits the best scale of such a group by least squares is beyond the largest half."""
    steps = torch.randint(-7, 8, (64, 64), generator=torch.Generator().manual_seed(1)) * 65500.0
    weights = steps + steps.sign() * gaussian(64, 64).abs().clamp(max=1) * 3000
    weights[:, ::32] = 458_500.0
    weights.clamp_(-458_500, 458_500)
    for kind, allowed in ((LlmWeightKind.Q4, 0.6), (LlmWeightKind.Q8, 0.04)):
        kept = unpacked(kernels, kind, weights)
        assert kept.isfinite().all()
        assert ((kept - weights).abs() <= allowed * 65504).all()


def test_every_variant_packs_the_same_bytes() -> None:
    library = native()
    if library is None:
        pytest.skip("no native kernels here")
    weights = torch.cat([gaussian(20, 200), gaussian(20, 200, seed=1, scale=1e-7)])
    before = library.variant
    for kind in PACKED_KINDS:
        packed = []
        for name in library.variants:
            library.use_variant(name)
            packed.append(matrix(library, kind, weights).memory)
        library.use_variant(before)
        assert all(torch.equal(one, packed[0]) for one in packed)


def test_rows_in_place_unpack_as_they_are(kernels: Native) -> None:
    weights = gaussian(7, 50).bfloat16()
    linear = LlmLinear(LlmWeightKind.BF16, 7, 50, 0, weights.data_ptr(), None)
    assert torch.equal(kernels.unpack(linear), weights.float())
