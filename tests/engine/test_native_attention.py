"""What the registered attention hands to the native library is checked first: the library sees addresses only."""

from __future__ import annotations

import pytest
import torch

from kernel_matrices import gaussian
from llm_local.engine.attention import AttentionShape, TorchAttention
from llm_local.engine.kv_cache import KVBudget, KVLayout, SequenceKV, kv_layout
from llm_local.engine.native_attention import NativeAttention
from llm_local.engine.packed_row import PackedRow, Segment
from llm_local.errors import EngineError
from llm_local.kernels.library import native
from tiny_models import tiny_model

pytestmark = pytest.mark.skipif(native() is None, reason="there is no compiler for the native library")

HEADS = 4
TOKENS = 6
PLAIN = AttentionShape(0.25, None, None, None)


def layout() -> KVLayout:
    return kv_layout(tiny_model("llama"))


def row() -> PackedRow:
    """Two sequences of new tokens."""
    made = PackedRow([1] * TOKENS, [], [])
    for offset, length in ((0, 4), (4, TOKENS - 4)):
        made.segments.append(Segment(SequenceKV(KVBudget(None), length, layout()), offset, length))
    made.make_room()
    return made


def rows(
    heads: int = 0, tokens: int = TOKENS, dim: int = 0, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """`[heads, tokens, dim]`, of keys where nothing else is said."""
    return gaussian(heads or layout().heads, tokens, dim or layout().key_dim).to(dtype)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: AttentionShape = PLAIN
) -> torch.Tensor:
    library = native()
    assert library is not None
    return NativeAttention(library, row(), layout())(0, query, key, value, shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_agrees_with_torch(dtype: torch.dtype) -> None:
    query, key, value = rows(HEADS), rows(), rows()
    sinks = gaussian(HEADS)
    for shape in (PLAIN, AttentionShape(0.25, None, 30.0, sinks)):
        expected = TorchAttention(row().segments)(0, query, key, value, shape)
        found = attend(query.to(dtype), key.to(dtype), value.to(dtype), shape)
        assert found.dtype == dtype
        assert torch.allclose(found.float(), expected, rtol=0, atol=0.05 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": rows(tokens=TOKENS - 1)}, "Layer 0 has keys"),
        ({"value": rows(tokens=TOKENS + 1)}, "Layer 0 has keys"),
        ({"value": rows(dim=8)}, "Layer 0 has keys"),
        ({"key": rows(heads=1), "value": rows(heads=1)}, "Layer 0 has keys"),
        ({"query": rows(HEADS, tokens=TOKENS - 1)}, "queries"),
        ({"query": rows(HEADS, dim=2 * layout().key_dim)}, "queries"),
        ({"query": rows(HEADS - 1)}, "queries"),
        ({"query": rows(HEADS, dtype=torch.bfloat16)}, "torch.bfloat16, torch.float32"),
        ({"value": rows(dtype=torch.bfloat16)}, "and torch.bfloat16"),
        (
            {
                name: rows(heads, dtype=torch.float16)
                for name, heads in (("query", 4), ("key", 2), ("value", 2))
            },
            "float16",
        ),
        ({"shape": AttentionShape(0.25, None, None, torch.zeros(HEADS - 1))}, "3 sinks for 4 heads"),
        ({"shape": AttentionShape(0.25, 3, None, None)}, "window of 3"),
    ],
)
def test_what_does_not_fit_never_reaches_the_library(changed: dict, message: str) -> None:
    given = {"query": rows(HEADS), "key": rows(), "value": rows(), "shape": PLAIN, **changed}
    with pytest.raises(EngineError, match=message):
        attend(**given)
