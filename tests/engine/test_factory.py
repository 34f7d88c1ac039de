"""Which models the packed engine takes, and how it finds out."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from engine_driving import request, run
from llm_local.engine import factory
from llm_local.engine.factory import PROVEN, make_engine, make_runner
from llm_local.engine.families import FAMILIES
from llm_local.engine.kv_cache import KVBudget, kv_layout
from llm_local.engine.native_runner import NativeRunner
from llm_local.engine.runner import PackedRunner
from llm_local.engine.universal import UniversalRunner
from llm_local.kernels.library import native
from tiny_models import (
    CONTEXT_LENGTH,
    PACKED,
    UNIVERSAL,
    architectures_markdown,
    random_prompt,
    reference_ids,
    tiny_model,
    tiny_variant,
)


def plain_copy(model_type):
    """A model of its own, with the attention it has when freshly loaded."""
    model = copy.deepcopy(tiny_model(model_type))
    model.set_attn_implementation("eager")
    return model


def test_what_is_called_proven_is_what_the_laws_test():
    assert frozenset(PACKED) == PROVEN


def test_the_page_of_architectures_is_fresh():
    page = Path(__file__).parents[2] / "docs" / "architectures.md"
    assert page.read_text(encoding="utf-8") == architectures_markdown(), "run scripts/generate_docs.py"


@pytest.mark.parametrize("kernels", ["auto", "linears", "off"])
def test_an_unknown_architecture_that_works_passes_the_probe(kernels, monkeypatch):
    monkeypatch.setattr(factory, "PROVEN", frozenset())
    for model_type in PACKED:
        runner = make_runner(plain_copy(model_type), KVBudget(None), kernels)
        assert isinstance(runner, NativeRunner if _has_step(model_type, kernels) else PackedRunner), (
            model_type
        )


def _has_step(model_type, kernels):
    return kernels == "auto" and native() is not None and model_type in FAMILIES


@pytest.mark.parametrize("model_type", sorted(PACKED))
@pytest.mark.parametrize("kernels", ["auto", "linears", "off"])
def test_the_setting_chooses_the_tier_and_the_engine_says_which(model_type, kernels):
    description = make_engine(
        plain_copy(model_type), context_length=CONTEXT_LENGTH, kernels=kernels
    ).description
    library = native()
    if library is None or kernels == "off":
        assert description == "stock torch"
    elif _has_step(model_type, kernels):
        assert description == f"native step ({library.variant})"
    elif model_type == "deepseek_v3":  # keys and values of two sizes
        assert description == f"native linears ({library.variant})"
    else:
        assert description == f"native linears and attention ({library.variant})"


@pytest.mark.parametrize("model_type", sorted(UNIVERSAL))
def test_what_is_more_than_attention_takes_the_universal_path(model_type):
    model = tiny_model(model_type)
    implementation = model.config._attn_implementation
    assert isinstance(make_runner(model, KVBudget(None)), UniversalRunner)
    assert model.config._attn_implementation == implementation


def test_a_window_that_only_the_mask_knows_is_noticed():
    """Also in an architecture that is proven without one: the packed forward builds no mask."""
    shape = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 3}
    model = tiny_variant("qwen2_moe", **shape)
    assert kv_layout(model).windows == (16, None, 16)
    assert isinstance(make_runner(model, KVBudget(None)), UniversalRunner)
    prompt = random_prompt(60)
    engine = make_engine(model, context_length=200)
    assert run(engine, request("a", prompt))["a"] == reference_ids(model, prompt, 24)


@pytest.mark.parametrize("length", [20, 55, 63, 64, 65, 100])
def test_longrope_changes_where_generate_changes_it(length):
    """Phi-3's embedding is another one beyond its first window; crossing it in mid-reply is what `generate` does."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [1.5 + n for n in range(8)]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64, **factors}
    model = tiny_variant(
        "phi3", rope_parameters={**rope, "factor": 16.0}, original_max_position_embeddings=64
    )
    prompt = random_prompt(length)
    engine = make_engine(model, context_length=200)
    assert run(engine, request("a", prompt))["a"] == reference_ids(model, prompt, 24)


def test_a_rotary_embedding_per_kind_of_layer_is_looked_into():
    model = plain_copy("gemma3_text")
    model.config.rope_parameters = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    }
    assert isinstance(make_runner(model, KVBudget(None)), UniversalRunner)


def test_rotary_embeddings_that_depend_on_the_length_are_not_packed():
    model = plain_copy("llama")
    model.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert isinstance(make_runner(model, KVBudget(None)), UniversalRunner)


def test_wrong_logits_are_noticed(monkeypatch, caplog):
    """A model whose tokens see each other outside of attention fails the probe and keeps its own attention."""
    model = plain_copy("llama")
    plain_forward = model.model.forward

    def leaky(*args, **kwargs):
        output = plain_forward(*args, **kwargs)
        # the neighbor's state leaks in, as in a convolution over the packed row
        output.last_hidden_state = output.last_hidden_state.cumsum(1)
        return output

    monkeypatch.setattr(model.model, "forward", leaky)
    monkeypatch.setattr(factory, "PROVEN", frozenset())
    with caplog.at_level("INFO"):
        assert isinstance(make_runner(model, KVBudget(None)), UniversalRunner)
    assert "other logits" in caplog.text
    assert model.config._attn_implementation == "eager"
