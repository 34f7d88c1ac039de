"""Native attention: near to exact for every shape, and a query's result is its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from kernel_matrices import gaussian
from kernel_stores import Store, segments_of
from llm_local.errors import EngineError
from llm_local.kernels.layout import LlmAttention
from llm_local.kernels.library import DTYPES, Native

# Relative to the largest exact output: float32 sums over a thousand keys; bfloat16 outputs have 8 bits.
TOLERANCES = {torch.float32: 3e-6, torch.bfloat16: 2.0**-8}
# What AMX tiles add, which round queries and weights to bfloat16 where keys and values are that.
ROUNDED = 2.0**-8


@dataclass(frozen=True)
class Case:
    """`new` tokens of a sequence that has `past`, and the layer they go through."""

    heads: int = 4
    kv_heads: int = 2
    dim: int = 64
    past: int = 0
    new: int = 1
    window: int = 0
    softcap: float = 0.0
    has_sinks: bool = False
    stored: torch.dtype = torch.float32
    dtype: torch.dtype = torch.float32
    slack: int = 3

    @property
    def start(self) -> int:
        """Half of what no query sees any more is forgotten, so that both kinds of places occur."""
        return max(0, self.past + 1 - self.window) // 2 if self.window else 0


@dataclass(frozen=True)
class Inputs:
    """Tensors of a case: `query` `[new, heads, dim]`, whole `keys` and `values` `[kv_heads, past + new, dim]`."""

    case: Case
    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    sinks: torch.Tensor | None

    @classmethod
    def of(cls, case: Case, seed: int = 0) -> Inputs:
        """Random ones; what is new is as exact as `dtype` and `stored` both are."""
        total = case.past + case.new
        query = gaussian(case.new, case.heads, case.dim, seed=seed).to(case.dtype)
        keys, values = (
            gaussian(case.kv_heads, total, case.dim, seed=seed + n).to(case.dtype).to(case.stored)
            for n in (1, 2)
        )
        return cls(case, query, keys, values, gaussian(case.heads, seed=seed + 3) if case.has_sinks else None)

    def store(self) -> Store:
        """What the sequence has before the new tokens."""
        case = self.case
        room = case.past + case.new - case.start + case.slack
        store = Store.poisoned(case.kv_heads, room, case.dim, case.stored, case.start)
        store.keys[:, : case.past - case.start] = self.keys[:, case.start : case.past]
        store.values[:, : case.past - case.start] = self.values[:, case.start : case.past]
        return store

    def rows(self, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Some of the new tokens' queries, keys and values `[tokens, heads, dim]`, in `dtype`."""
        here = slice(self.case.past + first, self.case.past + last)
        return (
            self.query[first:last],
            self.keys[:, here].transpose(0, 1).to(self.case.dtype),
            self.values[:, here].transpose(0, 1).to(self.case.dtype),
        )

    def exact(self) -> torch.Tensor:
        """The definition in float64, `[new, heads, dim]`."""
        case, group = self.case, self.case.heads // self.case.kv_heads
        keys, values = (x.double().repeat_interleave(group, 0) for x in (self.keys, self.values))
        scores = torch.einsum("nhd,hkd->hnk", self.query.double(), keys) * case.dim**-0.5
        if case.softcap:
            scores = torch.tanh(scores / case.softcap) * case.softcap
        query_at = torch.arange(case.past, case.past + case.new)[:, None]
        key_at = torch.arange(case.past + case.new)[None]
        visible = key_at <= query_at
        if case.window:
            visible &= key_at > query_at - case.window
        scores = scores.masked_fill(~visible, -math.inf)
        if self.sinks is not None:
            extra = self.sinks.double().view(-1, 1, 1).expand(-1, case.new, 1)
            weights = torch.cat([scores, extra], -1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        return torch.einsum("hnk,hkd->nhd", weights, values)


def attend(
    library: Native,
    inputs: list[Inputs],
    stores: list[Store],
    spans: list[tuple[int, int]],
    threads: int = 2,
) -> torch.Tensor:
    """Some new tokens of each sequence in one call, `[tokens, heads, dim]`; all sequences share a layer."""
    case = inputs[0].case
    parts = [one.rows(*span) for one, span in zip(inputs, spans, strict=True)]
    query, key, value = (torch.cat(rows) for rows in zip(*parts, strict=True))
    output = torch.full_like(query, torch.nan)
    sinks = inputs[0].sinks
    call = LlmAttention(
        query.data_ptr(),
        key.data_ptr(),
        value.data_ptr(),
        output.data_ptr(),
        *query.stride()[:2],
        *key.stride()[:2],
        *value.stride()[:2],
        DTYPES[query.dtype],
        DTYPES[case.stored],
        case.heads,
        case.kv_heads,
        case.dim,
        case.window,
        case.dim**-0.5,
        case.softcap,
        None if sinks is None else sinks.data_ptr(),
    )
    pasts = [one.case.past + first for one, (first, _) in zip(inputs, spans, strict=True)]
    lengths = [last - first for first, last in spans]
    library.attention(call, segments_of([[store] for store in stores], pasts, lengths), 0, threads)
    return output


def tolerance(library: Native, case: Case) -> float:
    """How far an output may be from the exact one, relative to the largest exact output."""
    on_tiles = library.variant == "amx" and case.stored == BF16
    return TOLERANCES[case.dtype] + (ROUNDED if on_tiles else 0.0)


BF16 = torch.bfloat16
CASES = [
    Case(),
    Case(new=7),
    Case(heads=14, past=700),
    Case(heads=14, new=100, past=255),
    Case(heads=1, kv_heads=1, dim=1, past=3, new=2),
    Case(heads=8, kv_heads=8, dim=80, past=31, new=33),
    Case(heads=3, kv_heads=1, dim=33, past=256, new=5, stored=BF16),
    Case(heads=12, dim=128, past=511, new=2, stored=BF16),
    Case(heads=4, kv_heads=1, dim=256, past=300, new=70, stored=BF16),
    Case(heads=64, kv_heads=1, dim=16, past=257, new=3),
    Case(heads=6, dim=96, past=200, new=60, window=100),
    Case(past=700, new=1, window=300, stored=BF16),
    Case(past=255, new=40, window=16, stored=BF16),
    Case(past=20, new=9, window=1),
    Case(dim=40, past=10, new=300, softcap=5.0, window=64),
    Case(past=300, new=20, softcap=2.0, has_sinks=True),
    Case(heads=8, past=600, new=1, has_sinks=True, window=128, stored=BF16),
    Case(past=100, new=30, dtype=BF16, stored=BF16),
    Case(heads=14, past=400, new=1, dtype=BF16, stored=BF16),
    Case(dim=7, past=60, new=30, dtype=BF16, has_sinks=True),
    Case(past=40, new=8, slack=0),
    Case(heads=14, past=500, new=60, stored=BF16),
    Case(heads=8, kv_heads=8, dim=80, past=31, new=40, stored=BF16),
    Case(heads=1, kv_heads=1, dim=1, past=3, new=2, stored=BF16),
    Case(dim=2, past=60, new=30, stored=BF16, has_sinks=True),
    Case(heads=64, kv_heads=1, dim=16, past=257, new=3, stored=BF16),
    Case(heads=150, kv_heads=1, past=257, new=2, stored=BF16),
    Case(heads=6, dim=96, past=200, new=60, stored=BF16, window=100),
    Case(dim=40, past=10, new=300, stored=BF16, softcap=5.0, window=64),
    Case(past=20, new=9, stored=BF16, window=1),
    Case(past=40, new=8, stored=BF16, slack=0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_is_what_its_definition_says(kernels: Native, case: Case) -> None:
    """Nothing outside the visible places is read (it is NaN), and nothing outside the new ones is written."""
    inputs = Inputs.of(case)
    store = inputs.store()
    output = attend(kernels, [inputs], [store], [(0, case.new)]).double()
    exact = inputs.exact()
    assert (output - exact).abs().max() <= tolerance(kernels, case) * exact.abs().max()
    end = case.past + case.new - case.start
    assert torch.equal(store.keys[:, :end], inputs.keys[:, case.start :])
    assert torch.equal(store.values[:, :end], inputs.values[:, case.start :])
    assert store.keys[:, end:].isnan().all()
    assert store.values[:, end:].isnan().all()


@pytest.mark.parametrize("case", [case for case in CASES if case.new > 1], ids=str)
def test_tokens_one_by_one_give_the_bits_of_the_chunk(kernels: Native, case: Case) -> None:
    inputs = Inputs.of(case)
    whole = attend(kernels, [inputs], [inputs.store()], [(0, case.new)], threads=1)
    store = inputs.store()
    single = [attend(kernels, [inputs], [store], [(i, i + 1)], threads=1 + i % 3) for i in range(case.new)]
    assert torch.equal(torch.cat(single), whole)


@pytest.mark.parametrize("stored", [torch.float32, BF16], ids=str)
@pytest.mark.parametrize("group", [1, 7])
def test_any_pieces_give_the_bits_of_the_chunk(kernels: Native, group: int, stored: torch.dtype) -> None:
    """Pieces of so many rows that tiles of every width occur, ends of blocks included."""
    inputs = Inputs.of(Case(heads=2 * group, past=230, new=150, stored=stored, window=140))
    whole = attend(kernels, [inputs], [inputs.store()], [(0, 150)])
    store, first, pieces = inputs.store(), 0, []
    for length in (1, 2, 3, 5, 8, 13, 21, 34, 40, 23):
        pieces.append(attend(kernels, [inputs], [store], [(first, first + length)]))
        first += length
    assert torch.equal(torch.cat(pieces), whole)


def test_what_comes_out_is_a_mean_of_values(kernels: Native) -> None:
    """Weights may be rounded, but their total is then that of the rounded ones: equal values come out as they are."""
    inputs = Inputs.of(Case(heads=14, past=700, new=20, stored=BF16))
    inputs.values.fill_(3.0)
    output = attend(kernels, [inputs], [inputs.store()], [(0, 20)])
    assert (output - 3.0).abs().max() <= 3e-6


def test_numbers_too_small_to_be_normal_are_harmless(kernels: Native) -> None:
    """Values near the smallest: each variant takes them as they are or for zero."""
    inputs = Inputs.of(Case(heads=4, past=300, new=5, stored=BF16))
    inputs.values.mul_(1e-39)
    output = attend(kernels, [inputs], [inputs.store()], [(0, 5)])
    assert output.abs().max() <= inputs.values.abs().max()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_sequence_does_not_notice_its_neighbors(kernels: Native, threads: int) -> None:
    layer = Case(heads=14, dim=64, window=400, stored=BF16)
    sequences = [
        Inputs.of(replace(layer, past=past, new=new), seed)
        for seed, (past, new) in enumerate([(0, 90), (700, 1), (3, 1), (300, 5), (255, 1), (600, 64)])
    ]
    alone = [attend(kernels, [one], [one.store()], [(0, one.case.new)], threads=1) for one in sequences]
    spans = [(0, one.case.new) for one in sequences]
    for _ in range(1 if threads == 1 else 20):  # threads take each other's tasks, every time in another order
        together = attend(kernels, sequences, [one.store() for one in sequences], spans, threads)
        assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("stored", [torch.float32, BF16], ids=str)
def test_scores_far_apart_neither_overflow_nor_vanish(kernels: Native, stored: torch.dtype) -> None:
    """One key in each of three blocks outweighs all others by far: the output is its value, and finite."""
    case = Case(heads=1, kv_heads=1, dim=16, past=700, new=1, stored=stored)
    inputs = Inputs.of(case)
    inputs.query.fill_(100.0)
    inputs.keys.mul_(0.1)
    for place, size in ((10, 50.0), (300, 90.0), (690, 70.0)):
        inputs.keys[0, place] = size
    output = attend(kernels, [inputs], [inputs.store()], [(0, 1)])
    assert torch.allclose(output[0, 0], inputs.values[0, 300].float(), atol=1e-6)


@pytest.mark.parametrize("stored", [torch.float32, BF16], ids=str)
def test_a_token_that_is_not_finite_spoils_only_its_own_sequence(
    kernels: Native, stored: torch.dtype
) -> None:
    layer = Case(heads=4, past=300, new=1, stored=stored)
    good, bad = Inputs.of(layer), Inputs.of(layer, seed=9)
    alone = attend(kernels, [good], [good.store()], [(0, 1)])
    bad.query.fill_(torch.nan)
    both = attend(kernels, [bad, good], [bad.store(), good.store()], [(0, 1), (0, 1)])
    assert both[0].isnan().all()
    assert torch.equal(both[1:], alone)


def test_a_store_without_room_or_with_too_little_is_refused_and_left_alone(kernels: Native) -> None:
    inputs = Inputs.of(Case(past=50, new=4, slack=0))
    store = inputs.store()
    before = store.keys.clone()
    short = Store(store.keys[:, :53].contiguous(), store.values[:, :53].contiguous())
    forgetful = replace(store, start=1)
    for wrong in (short, forgetful):
        with pytest.raises(EngineError):
            attend(kernels, [inputs], [wrong], [(0, 4)])
    assert torch.equal(store.keys.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"heads": 0}, {"kv_heads": 0}, {"window": -1}], ids=str)
def test_a_layer_that_is_none_is_refused(kernels: Native, wrong: dict[str, Any]) -> None:
    inputs = Inputs.of(Case())
    broken = replace(inputs, case=replace(inputs.case, **wrong))
    with pytest.raises(EngineError):
        attend(kernels, [broken], [inputs.store()], [(0, 1)])
