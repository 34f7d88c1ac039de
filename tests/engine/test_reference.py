"""The peer is transformers' own generate, whatever an engine did to the model before."""

from __future__ import annotations

import copy

import pytest
import torch

from llm_local.engine.attention import ATTENTION_NAME
from llm_local.engine.factory import make_engine
from llm_local.engine.reference import GenerateReference
from llm_local.specs import Kernels
from tiny_models import END_TOKEN, random_prompt, reference_ids, tiny_model


@pytest.mark.parametrize("kernels", ["linears", "off"])
def test_greedy_tokens_of_a_batch_beside_an_engine(kernels: Kernels) -> None:
    model = copy.deepcopy(tiny_model("llama"))
    model.set_attn_implementation("sdpa")
    peer = GenerateReference(model)
    make_engine(model, context_length=100, kernels=kernels)
    layers = type(model.lm_head)
    prompts = [random_prompt(9, seed=seed) for seed in (1, 2)]
    steps: list[str] = []

    def on_token() -> None:
        assert type(model.lm_head) is torch.nn.Linear
        steps.append(model.config._attn_implementation)

    found = peer.generate(prompts, 5, on_token)
    assert found == [reference_ids(model, prompt, 5) for prompt in prompts]
    assert steps == ["sdpa"] * 5
    assert model.config._attn_implementation == ATTENTION_NAME
    assert type(model.lm_head) is layers


def test_an_end_token_ends_nothing_and_the_models_defaults_come_back() -> None:
    model = copy.deepcopy(tiny_model("llama"))
    model.set_attn_implementation("sdpa")
    defaults = model.generation_config
    defaults.eos_token_id = list(range(model.config.vocab_size))
    model.config.eos_token_id = END_TOKEN
    found = GenerateReference(model).generate([random_prompt(4)], 6, lambda: None)
    assert len(found[0]) == 6
    assert model.generation_config is defaults
