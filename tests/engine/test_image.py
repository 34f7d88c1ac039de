"""A described decoder kept as data computes what it computed, to the last bit, without the model it came from."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
import torch

from llm_local.engine import image
from llm_local.engine.description import describe
from llm_local.engine.factory import image_of, make_engine, make_runner
from llm_local.engine.families import FAMILIES
from llm_local.engine.image import from_image, to_image
from llm_local.engine.kv_cache import KVBudget, kv_layout
from llm_local.engine.native_runner import NativeRunner
from llm_local.engine.sequence import Chunk
from llm_local.errors import InvalidRequest
from llm_local.kernels.layout import LlmWeightKind
from llm_local.kernels.library import Native
from llm_local.kernels.linear import required_native
from llm_local.loaders.decoder_image import DecoderImage, Span
from probing import probe_sequences
from tiny_models import ARCHITECTURES, packed_variant, tiny_model

TINY = sorted(FAMILIES.keys() & ARCHITECTURES.keys())


@pytest.fixture
def library() -> Native:
    """The native library of this machine."""
    return required_native()


def logits(runner: NativeRunner) -> torch.Tensor:
    """Of a prompt in two chunks beside another one, then of a token of each."""
    first, second = probe_sequences(runner)
    found = [runner.run([Chunk(first, 4), Chunk(second, second.num_pending)]).clone()]
    first.num_computed = 4
    found.append(runner.run([Chunk(first, first.num_pending)]).clone())
    return torch.cat(found)


def kept_image(model: Any, library: Native) -> DecoderImage:
    """As it comes back from a file: the facts through JSON, no memory shared with the model."""
    packed = [
        one for one in (*model.buffers(), *model.parameters()) if one.dtype == torch.uint8 or one.ndim == 1
    ]
    packed = [one.detach().view(torch.uint8) for one in packed if one.is_contiguous()]
    spans = [Span(one.data_ptr(), one.nbytes, index) for index, one in enumerate(packed)]
    found = to_image(describe(model, kv_layout(model), library), spans)
    assert found is not None
    facts, kept = found
    return DecoderImage(json.loads(json.dumps(facts)), (*(one.clone() for one in packed), kept.clone()))


@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.parametrize("form", ["float32", "int8"])
def test_an_image_computes_the_same_bits(model_type: str, form: str, library: Native) -> None:
    model = tiny_model(model_type) if form == "float32" else packed_variant(model_type, LlmWeightKind.Q8)
    expected = logits(NativeRunner(describe(model, kv_layout(model), library), KVBudget(None), library))
    kept = kept_image(model, library)
    if form == "int8":
        del model
        gc.collect()
    runner = make_runner(kept, KVBudget(None))
    assert isinstance(runner, NativeRunner)
    assert torch.equal(logits(runner), expected)


def test_weights_that_lie_in_a_span_are_not_copied(library: Native) -> None:
    """They are found where the span says, in the region and at the offset that it says."""
    model = tiny_model("llama")
    weight = model.model.layers[0].self_attn.q_proj.weight
    stored = torch.zeros(64 + weight.nbytes, dtype=torch.uint8)
    stored[64:] = weight.detach().view(torch.uint8).reshape(-1)
    native = describe(model, kv_layout(model), library)
    whole, partly = to_image(native, []), to_image(native, [Span(weight.data_ptr(), weight.nbytes, 0, 64)])
    assert whole is not None and partly is not None
    assert partly[0]["layers"][0]["query"]["weights"] == (0, 64)
    assert len(whole[1]) - len(partly[1]) == weight.nbytes
    images = [DecoderImage(whole[0], (whole[1],)), DecoderImage(partly[0], (stored, partly[1]))]
    one, other = (NativeRunner(from_image(kept), KVBudget(None), library) for kept in images)
    assert torch.equal(logits(one), logits(other))


def test_too_much_beside_the_stored_weights_is_no_image(
    library: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = describe(tiny_model("llama"), kv_layout(tiny_model("llama")), library)
    monkeypatch.setattr(image, "MAX_KEPT_BYTES", 1000)
    assert to_image(native, []) is None


def test_a_pointer_out_of_its_region_is_noticed(library: Native) -> None:
    kept = kept_image(tiny_model("llama"), library)
    with pytest.raises(IndexError, match="region -1"):
        from_image(DecoderImage(kept.facts, (kept.regions[0][:100],)))


def test_only_an_engine_of_the_native_step_has_an_image() -> None:
    model = tiny_model("llama")
    assert image_of(make_engine(model, context_length=64), []) is not None
    assert image_of(make_engine(model, context_length=64, kernels="off"), []) is None


@pytest.mark.parametrize("kernels", ["linears", "off"])
def test_other_kernels_are_not_silently_the_native_step(kernels: Any, library: Native) -> None:
    with pytest.raises(InvalidRequest, match="same kernels"):
        make_runner(kept_image(tiny_model("llama"), library), KVBudget(None), kernels)
