"""Scores of continuations: the model's own probabilities, the prompt read once, all texts in one pass behind it."""

from __future__ import annotations

import math

import pytest
import torch

from engine_driving import GREEDY, drain, engine_for, ids_of, request
from llm_local.engine.factory import make_engine
from llm_local.engine.protocol import TokenRequest
from llm_local.errors import ContextLengthExceeded, InsufficientMemory, InvalidRequest
from llm_local.options import GenerationOptions
from tiny_models import ARCHITECTURES, CONTEXT_LENGTH, END_TOKEN, UNIVERSAL, random_prompt, tiny_model

PROMPT = random_prompt(40)
# alike at the first token, one the beginning of another, one alone, one long
TEXTS = ((5, 6, 7), (5, 6), (5, 9), (5,), (11,), (12, *random_prompt(20, seed=3)))
# longer than the windows of the tiny models
LONG = random_prompt(100)


def expected(model, prompt_ids, text, end_ids=()):
    """Log-probabilities by transformers alone: one forward pass over prompt and text, in the model's own way."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt_ids, *text]]), use_cache=False).logits[0].float()
    finally:
        model.set_attn_implementation(implementation)
    rows = logits[len(prompt_ids) - 1 :].log_softmax(-1)
    ends = rows[-1][sorted(end_ids)].logsumexp(-1).item() if end_ids else None
    return [rows[i, token].item() for i, token in enumerate(text)], ends


def ask(prompt_ids=PROMPT, texts=TEXTS, sequence_id="decision", end_ids=(), **fields):
    options = GenerationOptions(max_new_tokens=1, temperature=0)
    return TokenRequest(
        sequence_id, tuple(prompt_ids), options, frozenset(end_ids), continuations=tuple(texts), **fields
    )


def answer(engine, one):
    """The scores of one request alone, and what it cost."""
    engine.submit(one)
    (last,) = [step for step in drain(engine)[one.sequence_id] if getattr(step, "last", False)]
    if last.error:
        raise last.error
    assert (last.token_id, last.finish_reason) == (None, "stop")
    return last.scores, last.report.usage


def check(scores, model, prompt_ids=PROMPT, texts=TEXTS, end_ids=(), tolerance=1e-4):
    assert len(scores.logprobs) == len(texts)
    assert len(scores.end_logprobs) == (len(texts) if end_ids else 0)
    for index, text in enumerate(texts):
        logprobs, end = expected(model, prompt_ids, text, end_ids)
        assert scores.logprobs[index] == pytest.approx(logprobs, abs=tolerance, rel=2e-5)
        if end_ids:
            assert scores.end_logprobs[index] == pytest.approx(end, abs=tolerance, rel=2e-5)


class Counting:
    """A runner that counts its calls and remembers what each one ran."""

    def __init__(self, engine):
        self.runner = engine._runner
        self.calls = []
        self.held_bytes = []
        engine._runner = self

    def __getattr__(self, name):
        return getattr(self.runner, name)

    def run(self, chunks):
        self.calls.append([(chunk.sequence.sequence_id, chunk.length) for chunk in chunks])
        self.held_bytes.append(self.runner.budget.used_bytes)
        return self.runner.run(chunks)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize("prompt_ids", [PROMPT, LONG], ids=["short", "long"])
def test_scores_are_those_of_plain_transformers(model_type, prompt_ids):
    model = tiny_model(model_type)
    engine = make_engine(model, context_length=CONTEXT_LENGTH)
    scores, _ = answer(engine, ask(prompt_ids, end_ids=(END_TOKEN, 7)))
    check(scores, model, prompt_ids, end_ids=(END_TOKEN, 7))
    assert engine.stats()["kv_used_bytes"] == 0


def test_the_prompt_is_one_pass_and_all_texts_are_one_more():
    engine = engine_for()
    counting = Counting(engine)
    scores, usage = answer(engine, ask(end_ids=(END_TOKEN,)))
    paths = [(5, 6, 7), (5, 9), (11,), TEXTS[-1]]  # the others lie on the way of one of these
    assert counting.calls == [[("decision", len(PROMPT))], [("decision", len(path)) for path in paths]]
    assert (scores.num_passes, scores.num_tokens) == (2, sum(map(len, paths)))
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(PROMPT), 0)


def test_single_tokens_need_no_pass_but_the_prompts():
    engine = engine_for()
    counting = Counting(engine)
    texts = [(token,) for token in range(3, 190)]
    scores, _ = answer(engine, ask(texts=texts))
    assert len(counting.calls) == scores.num_passes == 1
    assert scores.num_tokens == 0
    check(scores, tiny_model("llama"), texts=texts)


def test_hundreds_of_texts_go_in_one_pass():
    engine = engine_for()
    counting = Counting(engine)
    texts = [(3 + n % 150, 3 + n // 150, 9) for n in range(240)]
    scores, _ = answer(engine, ask(texts=texts))
    assert [len(call) for call in counting.calls] == [1, 240]
    check(scores, tiny_model("llama"), texts=texts)


def test_what_is_more_than_a_chunk_takes_more_passes_and_says_so():
    engine = engine_for()
    counting = Counting(engine)
    texts = [(3 + n, *random_prompt(20, seed=n)) for n in range(60)]
    scores, _ = answer(engine, ask(texts=texts))
    assert len(counting.calls) == scores.num_passes == 1 + math.ceil(60 / (512 // 20))
    check(scores, tiny_model("llama"), texts=texts)


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_without_room_for_copies_the_prompts_own_memory_serves(model_type):
    model = tiny_model(model_type)
    wide = make_engine(model, context_length=CONTEXT_LENGTH)
    need = wide._runner.new_state(len(PROMPT) + 22).bytes_to_append(len(PROMPT) + 21)
    engine = make_engine(model, context_length=CONTEXT_LENGTH, kv_limit_bytes=need)
    scores, _ = answer(engine, ask(end_ids=(END_TOKEN,)))
    assert scores.num_passes == 1 + 4
    check(scores, model, end_ids=(END_TOKEN,))
    assert engine.stats()["kv_used_bytes"] == 0


def test_texts_and_prompts_share_one_chunk():
    engine = engine_for()
    counting = Counting(engine)
    engine.submit(ask(texts=[(3 + n, *random_prompt(20, seed=n)) for n in range(30)]))
    engine.step()
    engine.submit(request("other", random_prompt(600)))
    drain(engine)
    assert [sum(length for _, length in call) for call in counting.calls[:3]] == [40, 512, 512]
    assert counting.calls[1][-1] == ("other", 512 - 25 * 20)


def test_universal_models_take_one_pass_a_path():
    assert "mamba" in UNIVERSAL
    engine = engine_for("mamba")
    counting = Counting(engine)
    scores, _ = answer(engine, ask())
    assert [len(call) for call in counting.calls] == [1, 1, 1]  # (5, 6) for the first three, and the long one
    assert scores.num_passes == 3
    assert counting.held_bytes == [0, 0, 0], "each pass reads all, so nothing is held beside it"


def test_a_cached_prompt_is_not_read_again():
    model = tiny_model("llama")
    engine = make_engine(model, context_length=CONTEXT_LENGTH, prefix_cache_bytes=10**8)
    cold, _ = answer(engine, ask())
    counting = Counting(engine)
    warm, usage = answer(engine, ask())
    assert counting.calls[0] == [("decision", 1)]
    assert usage.cached_tokens == len(PROMPT) - 1
    for one, other in zip(cold.logprobs, warm.logprobs, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    check(warm, model)


@pytest.mark.parametrize("model_type", ["llama", "bloom"])
def test_others_generate_beside_it_and_nothing_changes(model_type):
    model = tiny_model(model_type)
    alone = engine_for(model_type)
    alone.submit(request("other", random_prompt(30, seed=8)))
    wanted = ids_of(drain(alone)["other"])

    engine = engine_for(model_type)
    engine.submit(request("other", random_prompt(30, seed=8)))
    for _ in range(3):
        early = engine.step()
    assert early
    decisions = [
        ask(random_prompt(30 + n, seed=n), sequence_id=f"d{n}", end_ids=(END_TOKEN,)) for n in range(3)
    ]
    for one in decisions:
        engine.submit(one)
    steps = drain(engine)
    assert ids_of(steps["other"]) == wanted[-len(ids_of(steps["other"])) :]
    assert len(ids_of(steps["other"])) > 5
    for n, one in enumerate(decisions):
        check(steps[f"d{n}"][-1].scores, model, one.prompt_ids, end_ids=(END_TOKEN,))


def test_a_decision_is_preempted_between_its_passes_and_comes_back():
    """Two blocks of memory: one for each, none for copies. Then the other grows, and outranks the decision."""
    model = tiny_model("llama")
    texts = [tuple(random_prompt(20, seed=50 + n)) for n in range(20)]
    block = engine_for()._runner.new_state(1).bytes_to_append(1)
    engine = engine_for(kv_limit_bytes=2 * block)
    counting = Counting(engine)
    engine.submit(request("other", random_prompt(250, seed=0), GREEDY, priority=1))
    engine.step()
    engine.submit(ask(texts=texts))
    steps = drain(engine)
    check(steps["decision"][-1].scores, model, texts=texts)
    lengths = [length for call in counting.calls for name, length in call if name == "decision"]
    reads = [index for index, length in enumerate(lengths) if length == len(PROMPT)]
    assert len(reads) == 2, "the prompt was read again"
    assert reads[0] + 1 < reads[1], "after texts had been scored"
    assert len(lengths) == len(reads) + len(texts), "which were not scored again"
    assert len(ids_of(steps["other"])) > 5


def test_cancelling_frees_everything():
    engine = engine_for()
    engine.submit(ask(random_prompt(600)))
    engine.step()
    engine.cancel("decision")
    (last,) = engine.step()
    assert (last.finish_reason, last.scores) == ("cancelled", None)
    assert engine.stats()["kv_used_bytes"] == 0
    assert not engine.has_work()


class Failing(Counting):
    """A runner that fails in the calls that a test names, by number."""

    failures = ()

    def run(self, chunks):
        self.calls.append([(chunk.sequence.sequence_id, chunk.length) for chunk in chunks])
        if len(self.calls) in self.failures:
            raise RuntimeError("the device is gone")
        return self.runner.run(chunks)


@pytest.mark.parametrize("model_type", ["llama", "mamba"])
def test_a_pass_that_fails_is_tried_again_one_by_one(model_type):
    engine = engine_for(model_type)
    failing = Failing(engine)
    failing.failures = (2,)
    engine.submit(ask())
    if model_type == "mamba":  # something must be beside it, or there is no one by one
        engine.submit(request("other", PROMPT))
    scores = drain(engine)["decision"][-1].scores
    check(scores, tiny_model(model_type))
    assert scores.num_passes > (2 if model_type == "llama" else 3)


def test_a_text_that_cannot_be_run_fails_the_decision_once_and_alone():
    engine = engine_for()
    failing = Failing(engine)
    failing.failures = (2, 3)
    engine.submit(ask())
    steps = drain(engine)["decision"]
    assert "the device is gone" in str(steps[-1].error)
    assert sum(getattr(step, "last", False) for step in steps) == 1
    assert len(failing.calls) == 3, "what is left of it is not run any more"
    assert engine.stats()["kv_used_bytes"] == 0


def test_after_an_interruption_the_same_scores_come():
    engine = engine_for()
    runner, calls = engine._runner, []

    class Interrupted:
        def __getattr__(self, name):
            return getattr(runner, name)

        def run(self, chunks):
            calls.append(chunks)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return runner.run(chunks)

    engine._runner = Interrupted()
    engine.submit(ask())
    engine.step()
    held = engine.stats()["kv_used_bytes"]
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    assert engine.stats()["kv_used_bytes"] == held, "copies were given back"
    check(drain(engine)["decision"][-1].scores, tiny_model("llama"))


def test_logits_that_are_no_numbers_fail_it_alone():
    engine = engine_for()
    runner = engine._runner

    class Poisoned(Counting):
        def run(self, chunks):
            rows = runner.run(chunks)
            return rows * float("nan") if any(c.sequence.root is not c.sequence for c in chunks) else rows

    Poisoned(engine)
    engine.submit(ask())
    last = drain(engine)["decision"][-1]
    assert last.error.kind == "numerical_error"
    assert engine.stats()["kv_used_bytes"] == 0


def test_what_can_never_run_is_refused_before_any_compute():
    engine = engine_for(kv_limit_bytes=300 * engine_for()._runner.layout.bytes_per_token)
    with pytest.raises(InvalidRequest, match="A continuation is empty"):
        engine.submit(ask(texts=[(5,), ()]))
    with pytest.raises(InvalidRequest, match="outside the vocabulary"):
        engine.submit(ask(texts=[(5,), (10**6,)]))
    with pytest.raises(ContextLengthExceeded) as caught:
        engine.submit(ask(texts=[(5,), (5,) * CONTEXT_LENGTH]))
    assert caught.value.reserve == CONTEXT_LENGTH
    with pytest.raises(InsufficientMemory):
        engine.submit(ask(texts=[(5,), (5,) * 300]))
    assert not engine.has_work()


def test_speculation_leaves_it_alone():
    from llm_local.engine.speculative import NgramDrafter

    model = tiny_model("llama")
    engine = make_engine(
        model, context_length=CONTEXT_LENGTH, drafter=NgramDrafter(), prefix_cache_bytes=10**8
    )
    prompt = (5, 6, 7, 8) * 12
    for _ in range(2):
        scores, usage = answer(engine, ask(prompt))
        check(scores, model, prompt)
        assert usage.drafted_tokens == 0
