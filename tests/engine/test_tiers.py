"""The tiers of the packed forward: stock torch, native linears and attention, and the native step. One law for all."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace

import pytest
import torch

from engine_driving import GREEDY, drain, ids_of, request, run
from llm_local.engine import factory
from llm_local.engine.factory import make_engine, make_runner
from llm_local.engine.families import FAMILIES
from llm_local.engine.kv_cache import KVBudget
from llm_local.engine.native_runner import NativeRunner
from llm_local.engine.runner import PackedRunner
from llm_local.engine.sequence import Chunk, Sequence
from llm_local.engine.speculative import NgramDrafter
from llm_local.errors import EngineError
from llm_local.kernels.layout import LlmWeightKind
from llm_local.kernels.library import native
from llm_local.options import GenerationOptions
from tiny_models import (
    CONTEXT_LENGTH,
    PACKED,
    packed_variant,
    random_prompt,
    reference_ids,
    tiny_model,
    tiny_variant,
)

pytestmark = pytest.mark.skipif(native() is None, reason="there is no compiler for the native library")

SAMPLED = GenerationOptions(temperature=0.9, top_k=40, seed=7, max_new_tokens=16)
LENGTHS = (3, 41, 300)

# By which kernels each architecture runs, beside the tier that every law test uses anyway.
TIERS = [(name, "linears") for name in sorted(PACKED)] + [(name, "off") for name in sorted(PACKED)]
STEPS = [(name, "auto") for name in sorted(FAMILIES)]

NUMBERS = ["bfloat16", "int8", "int4"]


def engine_of(model, kernels, **options):
    return make_engine(model, context_length=CONTEXT_LENGTH, kernels=kernels, **options)


@functools.cache
def model_of(model_type, numbers):
    """A tiny model in other number formats. Do not modify it."""
    if numbers == "bfloat16":
        return copy.deepcopy(tiny_variant(model_type)).bfloat16()
    return packed_variant(model_type, {"int8": LlmWeightKind.Q8, "int4": LlmWeightKind.Q4}[numbers])


def read(runner, prompts, chunk_tokens, together):
    """The logits after each prompt, read in chunks of `chunk_tokens`, in one batch or one after the other."""
    sequences = [
        Sequence(request(str(n), prompt), runner.new_state(len(prompt)), SimpleNamespace(), len(prompt) + 1)
        for n, prompt in enumerate(prompts)
    ]
    found = {}
    groups = [sequences] if together else [[one] for one in sequences]
    for group in groups:
        while waiting := [one for one in group if one.num_pending]:
            chunks = [Chunk(one, min(one.num_pending, chunk_tokens)) for one in waiting]
            rows = iter(runner.run(chunks).clone())
            for chunk in chunks:
                if chunk.completes:
                    found[chunk.sequence.sequence_id] = next(rows)
                chunk.sequence.num_computed += chunk.length
    return torch.stack([found[one.sequence_id] for one in sequences])


def read_by(model, kernels):
    """The logits after a few prompts by one of the tiers."""
    prompts = [random_prompt(length, seed=length) for length in (1, 17, 90)]
    return read(make_runner(model, KVBudget(None), kernels), prompts, 512, together=True)


@pytest.mark.parametrize(("model_type", "kernels"), TIERS)
def test_batched_equals_alone_equals_generate(model_type, kernels):
    """In float32, greedy; the prefix cache and guesses are on for the second half."""
    model = tiny_model(model_type)
    prompts = {str(length): random_prompt(length, seed=length) for length in LENGTHS}
    expected = {name: reference_ids(model, ids, GREEDY.max_new_tokens) for name, ids in prompts.items()}
    assert run(engine_of(model, kernels), *(request(n, ids) for n, ids in prompts.items())) == expected
    busy = engine_of(model, kernels, prefix_cache_bytes=1 << 30, drafter=NgramDrafter())
    for _ in range(2):
        assert {name: run(busy, request(name, ids))[name] for name, ids in prompts.items()} == expected


@pytest.mark.parametrize(("model_type", "kernels"), TIERS + STEPS)
def test_a_seed_holds_in_any_batch_and_any_chunks(model_type, kernels, monkeypatch):
    model = tiny_model(model_type)
    mine = request("mine", random_prompt(120), SAMPLED)
    alone = run(engine_of(model, kernels), mine)["mine"]
    monkeypatch.setattr(PackedRunner, "max_chunk_tokens", 32)
    monkeypatch.setattr(NativeRunner, "max_chunk_tokens", 32)
    strangers = [request(str(n), random_prompt(9 + n, seed=n), SAMPLED.replace(seed=n)) for n in range(3)]
    assert run(engine_of(model, kernels), *strangers, mine)["mine"] == alone


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("kernels", ["auto", "linears"])
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_neither_neighbors_nor_chunks_change_a_bit(model_type, kernels, numbers):
    """Logits of 16-bit and quantized models are the same to the bit alone, in a batch, and in chunks of any size."""
    runner = make_runner(model_of(model_type, numbers), KVBudget(None), kernels)
    assert isinstance(runner, NativeRunner if kernels == "auto" else PackedRunner)
    prompts = [random_prompt(length, seed=length) for length in (1, 17, 90)]
    whole = read(runner, prompts, 512, together=False)
    assert torch.isfinite(whole).all()
    for chunk_tokens in (1, 16, 37):
        assert torch.equal(read(runner, prompts, chunk_tokens, together=True), whole), chunk_tokens
    assert torch.equal(read(runner, prompts, 512, together=True), whole)


@pytest.mark.parametrize("numbers", ["int8", "int4"])
@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_tiers_agree_on_quantized_models(model_type, numbers):
    """Largest difference of logits in units of their spread. Most models agree to the bit; where a sum falls on the
    other side of a step of the 8-bit activations, up to 0.06 was seen on these wild weights."""
    step, linears = (read_by(model_of(model_type, numbers), kernels) for kernels in ("auto", "linears"))
    assert float((step - linears).abs().max() / linears.std()) < 0.1


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_the_step_is_nearer_to_the_truth_than_torch_in_bfloat16(model_type):
    """Its residual stream is float32, so it rounds less: the truth is the model in float32."""
    model = model_of(model_type, "bfloat16")
    truth = read_by(tiny_model(model_type), "off")
    errors = {
        kernels: float((read_by(model, kernels) - truth).abs().max() / truth.std())
        for kernels in ("auto", "linears", "off")
    }
    assert errors["auto"] <= errors["off"] < 0.5
    assert errors["linears"] <= 1.5 * errors["off"]


def test_cancelling_frees_the_memory():
    for kernels in ("auto", "linears", "off"):
        engine = engine_of(tiny_model("llama"), kernels)
        engine.submit(request("a", random_prompt(50)))
        engine.step()
        assert engine.stats()["kv_used_bytes"] > 0
        engine.cancel("a")
        drain(engine)
        assert engine.stats()["kv_used_bytes"] == 0


@pytest.mark.parametrize("kernels", ["auto", "linears"])
def test_a_call_that_the_library_refuses_fails_its_sequences_and_no_others(kernels, monkeypatch):
    engine = engine_of(tiny_model("llama"), kernels)
    expected = run(engine_of(tiny_model("llama"), kernels), request("good", random_prompt(20)))["good"]
    name = "step" if kernels == "auto" else "attention"
    plain = getattr(type(native()), name)

    def failing(self, call, segments, *rest):
        lengths = segments.segments[: segments.num_segments] if kernels == "auto" else segments
        if any(one.past + one.length > 30 for one in lengths):
            raise EngineError("The native library refused a call.")
        return plain(self, call, segments, *rest)

    monkeypatch.setattr(type(native()), name, failing)
    engine.submit(request("good", random_prompt(20), GREEDY.replace(max_new_tokens=8)))
    engine.submit(request("bad", random_prompt(40)))
    steps = drain(engine)
    assert isinstance(steps["bad"][-1].error, EngineError)
    assert ids_of(steps["good"]) == expected[:8]
    assert engine.stats()["kv_used_bytes"] == 0


def test_what_the_step_does_not_know_runs_through_transformers(caplog):
    """A weight that no row of the table names would be left out: such a model is not described."""
    model = tiny_variant("llama")
    model.model.layers[1].self_attn.extra = torch.nn.Linear(4, 4)
    with caplog.at_level("INFO"):
        assert isinstance(make_runner(model, KVBudget(None)), PackedRunner)
    assert "model.layers.1.self_attn.extra has weights that its family does not know" in caplog.text


def test_the_step_takes_code_it_does_not_know_only_after_a_probe(monkeypatch, caplog):
    """The same module tree can compute something else."""
    model = tiny_variant("llama")
    norm = model.model.norm
    monkeypatch.setattr(norm, "forward", lambda x: 1.5 * type(norm).forward(norm, x))
    monkeypatch.setattr(factory, "PROVEN", frozenset())
    with caplog.at_level("INFO"):
        assert isinstance(make_runner(model, KVBudget(None)), PackedRunner)
    assert "other logits" in caplog.text


def test_rotary_tables_grow_with_the_sequence():
    """A reply that crosses the end of the tables goes on as `generate` does."""
    model = tiny_variant("llama", max_position_embeddings=4096)
    prompt = random_prompt(1020)
    engine = make_engine(model, context_length=4096)
    assert run(engine, request("a", prompt))["a"] == reference_ids(model, prompt, GREEDY.max_new_tokens)


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}),
        ("llama", {"hidden_act": "gelu_pytorch_tanh", "head_dim": 24, "tie_word_embeddings": True}),
        ("phi3", {"sliding_window": 16}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
        ("qwen3", {"num_key_value_heads": 1, "num_attention_heads": 3, "attention_bias": True}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_variants_of_a_family(model_type, changes):
    """What a configuration may change within a family reaches the step."""
    model = tiny_variant(model_type, **changes)
    runner = make_runner(model, KVBudget(None))
    assert isinstance(runner, NativeRunner)
    prompt = random_prompt(70)
    engine = engine_of(model, "auto")
    assert run(engine, request("a", prompt))["a"] == reference_ids(model, prompt, GREEDY.max_new_tokens)
