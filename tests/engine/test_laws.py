"""What must hold for every architecture: the batch changes nothing, and transformers agrees."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine_driving import GREEDY, drain, engine_for, ids_of, request, run
from llm_local.engine.kv_cache import kv_layout
from llm_local.engine.native_runner import NativeRunner
from llm_local.engine.runner import PackedRunner
from llm_local.options import GenerationOptions
from tiny_models import ARCHITECTURES, END_TOKEN, PACKED, random_prompt, reference_ids, tiny_model

LENGTHS = (5, 37, 1, 600)
SAMPLED = GenerationOptions(temperature=0.9, top_k=40, top_p=0.95, seed=7, max_new_tokens=24)


@pytest.fixture(params=sorted(ARCHITECTURES))
def model_type(request):
    return request.param


def prompts():
    return {f"prompt of {length}": random_prompt(length, seed=length) for length in LENGTHS}


def test_batched_equals_alone_equals_generate(model_type):
    """Greedy ids are the same in one packed batch, alone, and from transformers' `generate` (float32)."""
    model = tiny_model(model_type)
    expected = {name: reference_ids(model, ids, GREEDY.max_new_tokens) for name, ids in prompts().items()}
    assert len({tuple(ids) for ids in expected.values()}) == len(LENGTHS), "a degenerate model proves nothing"
    assert len(set().union(*expected.values())) >= 20, "a degenerate model proves nothing"

    batched = run(engine_for(model_type), *(request(name, ids) for name, ids in prompts().items()))
    alone = {name: run(engine_for(model_type), request(name, ids))[name] for name, ids in prompts().items()}

    assert batched == expected
    assert alone == expected


def test_arrival_in_the_middle_changes_nothing(model_type):
    """Sequences that join while others decode neither disturb nor are disturbed."""
    engine = engine_for(model_type)
    steps = {name: [] for name in prompts()}
    for name, ids in prompts().items():
        engine.submit(request(name, ids))
        for _ in range(3):
            for step in engine.step():
                steps[step.sequence_id].append(step)
    for name, rest in drain(engine).items():
        steps[name] += rest

    expected = run(engine_for(model_type), *(request(name, ids) for name, ids in prompts().items()))
    assert {name: ids_of(found) for name, found in steps.items()} == expected


def test_seed_holds_in_any_batch(model_type):
    """A seeded sequence samples the same ids alone and among strangers, whatever they sample."""
    mine = request("mine", random_prompt(20), SAMPLED)
    alone = run(engine_for(model_type), mine)["mine"]
    strangers = [
        request(str(n), random_prompt(3 + 11 * n, seed=n), SAMPLED.replace(seed=n, temperature=1.3))
        for n in range(4)
    ]
    batched = run(engine_for(model_type), *strangers[:2], mine, *strangers[2:])["mine"]
    assert batched == alone
    other_seed = run(engine_for(model_type), request("mine", random_prompt(20), SAMPLED.replace(seed=8)))[
        "mine"
    ]
    assert other_seed != alone


@pytest.mark.parametrize("model_type", sorted(PACKED))
@pytest.mark.parametrize("chunk_tokens", [1, 7, 64])
def test_chunked_prefill_equals_whole(model_type, chunk_tokens, monkeypatch):
    """Reading a prompt in pieces gives the ids of reading it at once."""
    prompt = random_prompt(100)
    whole = run(engine_for(model_type), request("a", prompt))["a"]
    monkeypatch.setattr(PackedRunner, "max_chunk_tokens", chunk_tokens)
    monkeypatch.setattr(NativeRunner, "max_chunk_tokens", chunk_tokens)
    assert run(engine_for(model_type), request("a", prompt))["a"] == whole


@pytest.mark.parametrize("model_type", sorted(set(PACKED) - {"mistral", "starcoder2"}))  # windows never grow
def test_preemption_changes_nothing(model_type):
    """Sequences that lose their memory half-way and are computed again give the same ids, greedy or sampled."""
    requests = [
        replace(request(str(n), random_prompt(246, seed=n), options), stop_token_ids=frozenset())
        for n, options in enumerate([GREEDY, SAMPLED, GREEDY.replace(max_new_tokens=30)])
    ]
    expected = run(engine_for(model_type), *requests)
    # the three prompts fit exactly, and no reply has room to grow into a second block
    roomy = engine_for(model_type)
    for one in requests:
        roomy.submit(one)
    while roomy.stats()["running"] < len(requests):
        roomy.step()
    tight = engine_for(model_type, kv_limit_bytes=roomy.stats()["kv_used_bytes"])
    for one in requests:
        tight.submit(one)
    outputs = {one.sequence_id: [] for one in requests}
    all_ran = preempted = False
    while tight.has_work():
        for step in tight.step():
            outputs[step.sequence_id].append(step)
        stats = tight.stats()
        all_ran |= stats["running"] == len(requests)
        preempted |= all_ran and stats["waiting"] > 0
        assert stats["kv_used_bytes"] <= stats["kv_limit_bytes"]
    assert preempted, "the budget was not tight enough to test anything"
    assert {name: ids_of(steps) for name, steps in outputs.items()} == expected


def test_log_probabilities_are_the_models_own(model_type):
    """Reported log-probabilities equal log-softmax of transformers' logits, whatever the sampling options."""
    prompt = random_prompt(12)
    options = SAMPLED.replace(logprobs=True, top_logprobs=3, repetition_penalty=1.3, max_new_tokens=8)
    engine = engine_for(model_type)
    engine.submit(request("a", prompt, options))
    steps = [step for step in drain(engine)["a"] if getattr(step, "logprob", None)]
    model = tiny_model(model_type)
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    ids = torch.tensor([list(prompt) + [step.token_id for step in steps]])
    expected = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    model.set_attn_implementation(implementation)
    for row, step in zip(expected, steps, strict=True):
        assert step.logprob.logprob == pytest.approx(float(row[step.token_id]), abs=1e-3)
        assert [token_id for token_id, _ in step.logprob.top] == row.topk(3).indices.tolist()
        assert [value for _, value in step.logprob.top] == pytest.approx(
            row.topk(3).values.tolist(), abs=1e-3
        )


def test_prompt_log_probabilities_are_the_models_own(model_type):
    """Every prompt token's, over several chunks, in a batch with others."""
    model, prompt = tiny_model(model_type), random_prompt(600)
    engine = engine_for(model_type)
    engine.submit(request("b", random_prompt(9)))
    engine.submit(
        replace(request("a", prompt, GREEDY.replace(logprobs=True, top_logprobs=2)), prompt_logprobs=True)
    )
    found = [entry for step in drain(engine)["a"] for entry in getattr(step, "logprobs", ())]
    with torch.no_grad():
        implementation = model.config._attn_implementation
        model.set_attn_implementation("eager")
        expected = model(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
        model.set_attn_implementation(implementation)
    assert [entry.token_id for entry in found] == list(prompt[1:])
    chosen = expected.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    assert torch.allclose(torch.tensor([entry.logprob for entry in found]), chosen, atol=2e-3)
    assert torch.allclose(
        torch.tensor([entry.top[0][1] for entry in found]), expected.max(-1).values, atol=2e-3
    )


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text", "gpt_oss", "mistral", "starcoder2"])
def test_a_sliding_window_forgets_what_it_cannot_see(model_type):
    """Long replies keep to the reference ids although windowed layers hold little more than their window."""
    model = tiny_model(model_type)
    prompt = random_prompt(700)
    endless = GREEDY.replace(max_new_tokens=300, logit_bias={END_TOKEN: -100.0})
    engine = engine_for(model_type)
    engine.submit(request("a", prompt, endless))
    ids, peak = [], 0
    while engine.has_work():
        ids += ids_of(engine.step())
        peak = max(peak, engine.stats()["kv_used_bytes"])
    model.generation_config.suppress_tokens = [END_TOKEN]
    expected = reference_ids(model, prompt, 300)
    model.generation_config.suppress_tokens = None
    assert ids == expected
    full_layers = (
        model.config.layer_types.count("full_attention") if model_type not in ("mistral", "starcoder2") else 0
    )
    per_layer = kv_layout(model).bytes_per_token // model.config.num_hidden_layers
    windowed = 768  # a chunk of 512 and the window, rounded up
    assert peak <= per_layer * (full_layers * 1536 + (3 - full_layers) * windowed)
