"""Guessing ahead changes how fast tokens come, never which."""

from __future__ import annotations

import copy

import pytest
import torch

from engine_driving import GREEDY, drain, ids_of, request, run
from llm_local.engine.factory import make_draft, make_engine
from llm_local.engine.kv_cache import kv_layout
from llm_local.engine.speculative import NgramDrafter
from llm_local.errors import UnsupportedTask
from llm_local.options import GenerationOptions
from tiny_models import CONTEXT_LENGTH, END_TOKEN, PACKED, random_prompt, tiny_model, tiny_variant

SAMPLED = GenerationOptions(
    temperature=0.8, top_p=0.9, seed=5, max_new_tokens=40, repetition_penalty=1.2, presence_penalty=0.5
)


def engine_with(model_type, drafter, **limits):
    return make_engine(tiny_model(model_type), context_length=CONTEXT_LENGTH, drafter=drafter, **limits)


def draft_of(model_type, context_length=CONTEXT_LENGTH, kv_limit_bytes=None):
    """A drafter over a model of its own."""
    model = copy.deepcopy(tiny_model(model_type))
    return make_draft(model, context_length=context_length, kv_limit_bytes=kv_limit_bytes)


def repetitive_prompt(seed=0):
    """Something an n-gram drafter finds guesses in."""
    return random_prompt(30, seed=seed) * 4


class Oracle:
    """Guesses from a list of what will come; `wrong_at` spoils single guesses."""

    def __init__(self, future, wrong_at=()):
        self.future, self.wrong_at = future, wrong_at

    def propose(self, sequences):
        guesses = {}
        for sequence in sequences:
            done = sequence.num_completion_tokens
            ahead = self.future[sequence.sequence_id][done : done + 5]
            guesses[sequence.sequence_id] = [
                (token + 1) % 199 if done + n in self.wrong_at else token for n, token in enumerate(ahead)
            ]
        return guesses

    def forget(self, sequence):
        pass


@pytest.mark.parametrize("options", [GREEDY.replace(max_new_tokens=40), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("model_type", sorted(PACKED))
def test_speculation_changes_nothing(model_type, options):
    """Right and wrong guesses, with and without the batch: the ids of a plain run, for every architecture."""
    requests = [request(str(n), repetitive_prompt(n), options) for n in range(3)]
    expected = run(engine_with(model_type, None), *requests)
    assert run(engine_with(model_type, NgramDrafter()), *requests) == expected
    assert run(engine_with(model_type, Oracle(expected, wrong_at=(3, 4, 11, 20))), *requests) == expected


def test_right_guesses_save_steps_and_are_counted():
    """With an oracle five guesses come true at a time: 40 tokens take about 40 / 6 steps."""
    one = request("a", random_prompt(10), GREEDY.replace(max_new_tokens=40, logit_bias={END_TOKEN: -100.0}))
    future = run(engine_with("llama", None), one)
    engine = engine_with("llama", Oracle(future))
    engine.submit(one)
    steps, num_steps = [], 0
    while engine.has_work():
        steps += engine.step()
        num_steps += 1
    assert ids_of(steps) == future["a"]
    assert num_steps <= 8
    usage = steps[-1].report.usage
    assert usage.completion_tokens == 40
    assert usage.accepted_tokens == usage.drafted_tokens >= 32


def test_a_model_drafting_for_itself_is_always_right():
    """The greedy guesses of the same model all come true; those of another one need not, and change nothing."""
    one = request("a", random_prompt(20), GREEDY.replace(logit_bias={END_TOKEN: -100.0}))
    two = request("b", random_prompt(33), GREEDY)
    expected = run(engine_with("llama", None), one, two)
    engine = engine_with("llama", draft_of("llama"))
    for each in (one, two):
        engine.submit(each)
    steps = drain(engine)
    assert {name: ids_of(found) for name, found in steps.items()} == expected
    usage = steps["a"][-1].report.usage
    assert usage.drafted_tokens > 0
    assert usage.accepted_tokens == usage.drafted_tokens
    stranger = engine_with("llama", draft_of("qwen2"))
    assert run(stranger, one, two) == expected


def test_the_small_models_memory_is_freed():
    drafter = draft_of("llama")
    run(engine_with("llama", drafter), request("a", random_prompt(20)))
    assert drafter._runner.budget.used_bytes == 0


def test_the_small_model_keeps_to_its_memory_and_to_a_chunk():
    """Sixteen long prompts that a cache makes ready at once: guesses for some, in forwards of one chunk at most."""
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    shared = random_prompt(450)
    requests = [request(str(n), (*shared, 5, 6, 7 + n), GREEDY) for n in range(16)]
    expected = run(engine_with("llama", None), *requests)
    drafter = draft_of("llama", kv_limit_bytes=7 * block)
    engine = engine_with("llama", drafter, prefix_cache_bytes=1 << 30)
    run(engine, request("first", shared))
    plain_run, lengths, used = drafter._runner.run, [], []

    def recording(chunks):
        logits = plain_run(chunks)
        lengths.append(sum(chunk.length for chunk in chunks))
        used.append(drafter._runner.budget.used_bytes)
        return logits

    drafter._runner.run = recording
    for one in requests:
        engine.submit(one)
    steps = drain(engine)
    assert {name: ids_of(found) for name, found in steps.items()} == expected
    assert max(lengths) == 512
    assert block < max(used) <= 7 * block
    assert sum(found[-1].report.usage.accepted_tokens > 0 for found in steps.values()) >= 3


def test_a_sequence_that_outgrows_the_small_models_window_costs_it_nothing_more():
    drafter = draft_of("llama", context_length=40)
    engine = engine_with("llama", drafter)
    engine.submit(request("a", random_prompt(20), GREEDY.replace(logit_bias={END_TOKEN: -100.0})))
    used = []
    while engine.has_work():
        engine.step()
        used.append(drafter._runner.budget.used_bytes)
    assert max(used) > 0
    assert used[-2] == 0


def test_guesses_outside_the_vocabulary_and_forwards_that_fail_because_of_guesses_harm_nobody():
    """A small model with more rows of padding proposes ids that the large one has not; other guesses are too many."""
    one = request("a", random_prompt(20), GREEDY)
    expected = run(engine_with("llama", None), one)
    padded = make_draft(
        tiny_variant("llama", vocab_size=400), context_length=CONTEXT_LENGTH, kv_limit_bytes=None
    )
    assert run(engine_with("llama", padded), one) == expected
    engine = engine_with("llama", Oracle(expected))
    plain_run = engine._runner.run

    def run_without_guesses(chunks):
        if any(chunk.drafts for chunk in chunks):
            raise MemoryError
        return plain_run(chunks)

    engine._runner.run = run_without_guesses
    assert run(engine, one) == expected


def test_the_sequence_ends_at_the_end_token_among_right_guesses():
    """Nothing after the end token is delivered, although it was guessed and computed."""
    future = {"a": [11, 12, END_TOKEN, 13, 14]}

    class Follow:
        """A mask that forces the future."""

        def __init__(self):
            self.done = 0

        def ready(self, seconds):
            return True

        def allowed(self):
            return [token == future["a"][self.done] for token in range(199)]

        def accept(self, token_id):
            self.done += 1

    engine = engine_with("llama", Oracle(future))
    engine.submit(request("a", random_prompt(10), GREEDY, mask=Follow()))
    steps = drain(engine)["a"]
    assert ids_of(steps) == [11, 12, END_TOKEN]
    assert steps[-1].finish_reason == "stop"


@pytest.mark.parametrize("limits", [{"context_length": 300}, {"kv_limit_bytes": 1}], ids=["window", "memory"])
def test_a_draft_model_that_cannot_follow_has_no_guesses(limits):
    """A prompt of several chunks, and a small model whose window or memory is too short for it: the same ids."""
    one = request("a", random_prompt(700), GREEDY)
    expected = run(engine_with("llama", None), one)
    for draft in (draft_of("llama"), draft_of("llama", **limits)):
        engine = engine_with("llama", draft)
        engine.submit(one)
        steps = drain(engine)["a"]
        assert ids_of(steps) == expected["a"]
        drafted = steps[-1].report.usage.drafted_tokens
        assert (drafted > 0) == (draft._context_length > 300 and draft._runner.budget.limit_bytes is None)


def test_a_model_that_cannot_go_back_is_no_draft():
    with pytest.raises(UnsupportedTask, match="mamba"):
        make_draft(tiny_model("mamba"), context_length=100, kv_limit_bytes=None)


@pytest.mark.parametrize("cap", [1, 2, 3, 7])
def test_caps_hold(cap):
    one = request(
        "a", repetitive_prompt(), GREEDY.replace(max_new_tokens=cap, logit_bias={END_TOKEN: -100.0})
    )
    engine = engine_with("llama", NgramDrafter())
    engine.submit(one)
    steps = drain(engine)["a"]
    assert len(ids_of(steps)) == cap
    assert steps[-1].finish_reason == "length"


def test_with_a_prefix_cache_and_little_memory():
    """Guesses never take memory from tokens, and what is left behind is right."""
    block = 256 * kv_layout(tiny_model("gemma2")).bytes_per_token
    requests = [
        request(str(n), repetitive_prompt(n) * 2, GREEDY.replace(max_new_tokens=30)) for n in range(4)
    ]
    expected = run(engine_with("gemma2", None), *requests)
    engine = engine_with("gemma2", NgramDrafter(), kv_limit_bytes=3 * block, prefix_cache_bytes=block)
    for _ in range(2):
        assert run(engine, *requests) == expected
        assert engine.stats()["kv_used_bytes"] <= 3 * block


def test_ngrams_propose_what_followed():
    drafter = NgramDrafter(num_tokens=3, ngram_sizes=(3, 2))

    class Tokens:
        sequence_id = "a"

        def __init__(self, tokens):
            self.tokens = tokens

    assert drafter.propose([Tokens([1, 2, 3, 4, 5, 6])]) == {}
    assert drafter.propose([Tokens([1, 2, 3, 4, 5, 6, 2, 3])]) == {"a": [4, 5, 6]}
    assert drafter.propose([Tokens([1, 2, 3, 4, 5, 6, 2, 3, 9, 2, 3])]) == {"a": [9, 2, 3]}, (
        "the last one counts"
    )


class ForceFirst:
    """A mask that fixes the first token and leaves the others free."""

    def __init__(self, first):
        self.first = first

    def ready(self, seconds):
        return True

    def allowed(self):
        return [self.first is None or token == self.first for token in range(199)]

    def accept(self, token_id):
        self.first = None


def test_sampled_tokens_follow_the_models_distribution():
    """Over 3,000 seeds the frequencies at a guessed place match the model's own distribution (chi-square).

    The seeds are fixed, so the test is deterministic; with other seeds it would fail once in a thousand.
    """
    model = tiny_model("llama")
    prompt = repetitive_prompt()
    first = 7
    with torch.no_grad():
        implementation = model.config._attn_implementation
        model.set_attn_implementation("eager")
        logits = model(torch.tensor([[*prompt, first]])).logits[0, -1] / 3
        model.set_attn_implementation(implementation)
    values, ids = logits.topk(12)
    expected = values.double().softmax(-1)

    class SecondBest(Oracle):
        def propose(self, sequences):
            return {s.sequence_id: [int(ids[1])] for s in sequences}

    engine = engine_with("llama", SecondBest({}), prefix_cache_bytes=1 << 24)
    options = GenerationOptions(temperature=3.0, top_k=12, max_new_tokens=3)
    counts, accepted = torch.zeros(12, dtype=torch.float64), 0
    for start in range(0, 3000, 60):
        for seed in range(start, start + 60):
            engine.submit(request(str(seed), prompt, options.replace(seed=seed), mask=ForceFirst(first)))
        for steps in drain(engine).values():
            counts[ids.tolist().index(ids_of(steps)[1])] += 1
            accepted += steps[-1].report.usage.accepted_tokens > 0
    assert accepted > 100
    statistic = float(((counts - 3000 * expected) ** 2 / (3000 * expected)).sum())
    assert statistic < 31.26  # 11 degrees of freedom: 0.999 quantile
