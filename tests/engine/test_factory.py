"""Which models the packed engine takes, and how it finds out."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from llm_local.engine import factory
from llm_local.engine.factory import PROVEN, make_runner
from llm_local.engine.kv_cache import KVBudget
from llm_local.engine.runner import PackedRunner
from llm_local.engine.universal import UniversalRunner
from tiny_models import PACKED, UNIVERSAL, architectures_markdown, tiny_model


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


def test_an_unknown_architecture_that_works_passes_the_probe(monkeypatch):
    monkeypatch.setattr(factory, "PROVEN", frozenset())
    for model_type in PACKED:
        assert isinstance(make_runner(plain_copy(model_type), KVBudget(None)), PackedRunner), model_type


@pytest.mark.parametrize("model_type", sorted(UNIVERSAL))
def test_what_is_more_than_attention_takes_the_universal_path(model_type):
    model = tiny_model(model_type)
    implementation = model.config._attn_implementation
    assert isinstance(make_runner(model, KVBudget(None)), UniversalRunner)
    assert model.config._attn_implementation == implementation


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
