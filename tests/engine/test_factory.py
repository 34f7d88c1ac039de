"""Which models the packed engine takes, and how it finds out."""

from __future__ import annotations

import copy

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from llm_local.engine import factory
from llm_local.engine.factory import PROVEN, make_runner
from llm_local.engine.kv_cache import KVBudget
from llm_local.errors import UnsupportedTask
from tiny_models import ARCHITECTURES, tiny_model


def plain_copy(model_type):
    """A model of its own, with the attention it has when freshly loaded."""
    model = copy.deepcopy(tiny_model(model_type))
    model.set_attn_implementation("eager")
    return model


def test_what_is_called_proven_is_what_the_laws_test():
    assert frozenset(ARCHITECTURES) == PROVEN


def test_an_unknown_architecture_that_works_passes_the_probe(monkeypatch):
    monkeypatch.setattr(factory, "PROVEN", frozenset())
    budget = KVBudget(None)
    for model_type in ARCHITECTURES:
        make_runner(plain_copy(model_type), budget)
    assert budget.used_bytes == 0


def test_an_architecture_without_the_attention_interface_is_refused():
    config = AutoConfig.for_model(
        "bloom", vocab_size=99, hidden_size=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UnsupportedTask, match="bloom"):
        make_runner(model, KVBudget(None))


def test_wrong_logits_are_noticed(monkeypatch):
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
    with pytest.raises(UnsupportedTask, match="other logits"):
        make_runner(model, KVBudget(None))
    assert model.config._attn_implementation == "eager"
