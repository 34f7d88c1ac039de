"""Submitting, cancelling, failing, counting: the engine's manners."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from engine_driving import GREEDY, drain, engine_for, ids_of, request, run
from fakes import FakeClock
from llm_local.engine.engine import BatchEngine
from llm_local.engine.factory import make_runner
from llm_local.engine.kv_cache import KVBudget, kv_layout
from llm_local.engine.protocol import PrefillStep, TokenStep
from llm_local.errors import (
    ContextLengthExceeded,
    EngineError,
    InsufficientMemory,
    InvalidRequest,
    NumericalError,
)
from llm_local.options import GenerationOptions
from llm_local.sampling.sampler import Sampler
from tiny_models import CONTEXT_LENGTH, END_TOKEN, VOCAB_SIZE, random_prompt, tiny_model


class Saboteur:
    """A runner that spoils single sequences: `nan` gets NaN logits, `crash` makes the forward raise."""

    def __init__(self, runner):
        self._runner = runner
        self.budget = runner.budget
        self.max_chunk_tokens = runner.max_chunk_tokens
        self.new_state = runner.new_state

    def run(self, chunks):
        names = [chunk.sequence.sequence_id for chunk in chunks]
        logits = self._runner.run(chunks).clone()
        if "crash" in names:
            raise RuntimeError("a kernel died")
        completing = [chunk.sequence.sequence_id for chunk in chunks if chunk.completes]
        for row, name in enumerate(completing):
            if name == "nan":
                logits[row, 5] = math.nan
        return logits


def sabotaged_engine(model_type):
    runner = Saboteur(make_runner(tiny_model(model_type), KVBudget(None)))
    return BatchEngine(runner, context_length=CONTEXT_LENGTH, vocab_size=VOCAB_SIZE)


@pytest.mark.parametrize("model_type", ["llama", "mamba"])  # one for each runner
@pytest.mark.parametrize(("name", "error_type"), [("nan", NumericalError), ("crash", EngineError)])
def test_a_failing_sequence_fails_alone(name, error_type, model_type):
    """Its batch mates' ids equal their solo runs, and its memory comes back."""
    mates = [request(str(n), random_prompt(10 + n, seed=n)) for n in range(3)]
    expected = {one.sequence_id: run(engine_for(model_type), one)[one.sequence_id] for one in mates}
    engine = sabotaged_engine(model_type)
    for one in [*mates[:2], request(name, random_prompt(8)), mates[2]]:
        engine.submit(one)
    steps = drain(engine)
    assert isinstance(steps[name][-1].error, error_type)
    assert {mate: ids_of(steps[mate]) for mate in expected} == expected
    assert engine.stats()["kv_used_bytes"] == 0


def test_an_interrupted_forward_leaves_nothing_half_written():
    """Ctrl-C inside a forward pass: the next step goes on as if nothing had happened."""

    class Interrupted(Saboteur):
        interrupts = 0

        def run(self, chunks):
            logits = self._runner.run(chunks)
            self.interrupts += 1
            if self.interrupts in (1, 3):
                raise KeyboardInterrupt
            return logits

    engine = BatchEngine(
        Interrupted(make_runner(tiny_model("llama"), KVBudget(None))),
        context_length=CONTEXT_LENGTH,
        vocab_size=VOCAB_SIZE,
    )
    engine.submit(request("a", random_prompt(30)))
    ids = []
    while engine.has_work():
        try:
            ids += ids_of(engine.step())
        except KeyboardInterrupt:
            continue
    assert ids == run(engine_for(), request("a", random_prompt(30)))["a"]


@pytest.mark.parametrize("model_type", ["llama", "mistral", "mamba"])
def test_an_interruption_between_two_sequences_of_a_step_changes_neither(model_type, monkeypatch):
    """Ctrl-C before the nth sampling: those of the step that had no token yet compute their part again."""
    requests = [request("a", random_prompt(20)), request("b", random_prompt(40, seed=3))]
    expected = run(engine_for(model_type), *requests)
    plain_sample, count = Sampler.sample, 0

    def sample(self, *args):
        nonlocal count
        count += 1
        if count in (1, 5, 8):
            raise KeyboardInterrupt
        return plain_sample(self, *args)

    monkeypatch.setattr(Sampler, "sample", sample)
    engine = engine_for(model_type)
    for one in requests:
        engine.submit(one)
    found = {"a": [], "b": []}
    while engine.has_work():
        try:
            for step in engine.step():
                found[step.sequence_id].append(step)
        except KeyboardInterrupt:
            continue
    assert {name: ids_of(steps) for name, steps in found.items()} == expected
    assert engine.stats()["kv_used_bytes"] == 0


def test_what_happened_before_an_interruption_is_delivered_after_it():
    """Ctrl-C in a forward pass does not swallow the last step of a sequence that was cancelled before it."""
    engine = sabotaged_engine("llama")
    for name in "ab":
        engine.submit(request(name, random_prompt(9)))
    engine.step()
    engine.cancel("a")
    plain_run = engine._runner.run

    def interrupted(chunks):
        engine._runner.run = plain_run
        raise KeyboardInterrupt

    engine._runner.run = interrupted
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    steps = drain(engine)
    assert steps["a"][-1].finish_reason == "cancelled"
    assert steps["b"][-1].finish_reason == "length"


def test_a_failed_batch_is_tried_again_in_the_same_pieces():
    """After a failure as a whole each sequence runs alone, and a long prompt still in chunks."""
    engine = sabotaged_engine("llama")
    lengths = []
    plain_run = engine._runner.run

    def recording(chunks):
        lengths.append([chunk.length for chunk in chunks])
        if len(lengths) == 2:
            raise MemoryError("too much at once")
        return plain_run(chunks)

    engine._runner.run = recording
    engine.submit(request("talker", random_prompt(5)))
    engine.step()
    engine.submit(request("reader", random_prompt(1000)))
    engine.step()
    assert lengths == [[5], [1, 512], [1], [512]]


def test_a_runner_that_returns_too_little_fails_the_step_and_not_the_engine():
    engine = sabotaged_engine("llama")
    plain_run = engine._runner.run
    engine._runner.run = lambda chunks: plain_run(chunks)[:0]
    engine.submit(request("a", random_prompt(5)))
    assert isinstance(drain(engine)["a"][-1].error, EngineError)


def test_a_score_that_is_not_a_number_fails_its_request():
    engine = sabotaged_engine("llama")
    plain_run = engine._runner.run

    def spoiled(chunks):
        logits = plain_run(chunks).clone()
        logits[3] = math.nan
        return logits

    engine._runner.run = spoiled
    options = GREEDY.replace(logprobs=True)
    engine.submit(replace(request("a", random_prompt(9), options), prompt_logprobs=True))
    assert isinstance(drain(engine)["a"][-1].error, NumericalError)


def test_a_drafter_that_breaks_costs_nothing_but_its_guesses():
    class Broken:
        def propose(self, sequences):
            raise IndexError("no idea")

        def forget(self, sequence):
            pass

    engine = engine_for()
    engine._drafter = Broken()
    one = request("a", random_prompt(9))
    assert run(engine, one) == run(engine_for(), one)


def test_cancel_ends_within_one_step_and_frees_memory():
    engine = engine_for()
    engine.submit(request("a", random_prompt(700)))
    engine.submit(request("b", random_prompt(9)))
    engine.step()
    assert engine.stats()["kv_used_bytes"] > 0
    engine.cancel("a")
    engine.cancel("a")
    engine.cancel("never heard of")
    ends = [step for step in engine.step() if isinstance(step, TokenStep) and step.last]
    assert [(step.sequence_id, step.finish_reason) for step in ends] == [("a", "cancelled")]
    drain(engine)
    assert engine.stats() == {
        "waiting": 0,
        "running": 0,
        "kv_used_bytes": 0,
        "prefix_cache_bytes": 0,
        "kv_limit_bytes": -1,
    }


def test_cancel_while_waiting():
    engine = engine_for()
    engine.submit(request("a", random_prompt(5)))
    engine.cancel("a")
    (end,) = engine.step()
    assert end.finish_reason == "cancelled"
    assert end.report.usage.completion_tokens == 0
    assert not engine.has_work()


def test_usage_counts_what_was_seen_and_sampled():
    engine = engine_for()
    engine.submit(request("a", random_prompt(700)))
    steps = drain(engine)["a"]
    report = steps[-1].report
    assert report.usage.prompt_tokens == 700
    assert report.usage.completion_tokens == len(ids_of(steps)) == GREEDY.max_new_tokens
    assert steps[-1].finish_reason == "length"
    progress = [(step.done, step.total) for step in steps if isinstance(step, PrefillStep)]
    assert progress == [(512, 700), (700, 700)]
    assert [isinstance(step, PrefillStep) for step in steps] == [True, True] + [False] * 24


def test_the_end_token_ends_and_counts():
    """The end token is sampled, delivered and counted; nothing comes after it."""
    options = GREEDY.replace(logit_bias={END_TOKEN: 100.0})
    engine = engine_for()
    engine.submit(request("a", random_prompt(5), options))
    steps = drain(engine)["a"]
    assert ids_of(steps) == [END_TOKEN]
    assert steps[-1].finish_reason == "stop"
    assert steps[-1].report.usage.completion_tokens == 1


def test_generation_ends_at_the_window():
    engine = engine_for()
    engine.submit(
        request(
            "a",
            random_prompt(CONTEXT_LENGTH - 3),
            GenerationOptions(temperature=0, logit_bias={END_TOKEN: -100.0}),
        )
    )
    steps = drain(engine)["a"]
    assert len(ids_of(steps)) == 3
    assert steps[-1].finish_reason == "length"


def test_timings_add_up():
    """queued + prefill = first token; with decode they make the whole, by the engine's own clock."""
    clock = FakeClock(tick=1.0)
    runner = make_runner(tiny_model("llama"), KVBudget(None))
    engine = BatchEngine(runner, context_length=CONTEXT_LENGTH, vocab_size=VOCAB_SIZE, clock=clock)
    engine.submit(request("a", random_prompt(5)))
    clock.advance(50)
    timings = drain(engine)["a"][-1].report.timings
    assert timings.queued_s >= 50
    assert timings.first_token_s == timings.queued_s + timings.prefill_s
    assert timings.prefill_s > 0
    assert timings.decode_s > 0


@pytest.mark.parametrize(
    ("prompt_ids", "options", "param"),
    [
        ((), GREEDY, "prompt"),
        ((5, VOCAB_SIZE), GREEDY, "prompt"),
        ((5, -1), GREEDY, "prompt"),
        ((5,), GREEDY.replace(logit_bias={VOCAB_SIZE: 1.0}), "logit_bias"),
    ],
)
def test_bad_requests_are_refused_by_name(prompt_ids, options, param):
    engine = engine_for()
    with pytest.raises(InvalidRequest) as caught:
        engine.submit(request("a", prompt_ids, options))
    assert caught.value.param == param
    assert not engine.has_work()


def test_a_sequence_id_is_used_once_at_a_time():
    engine = engine_for()
    engine.submit(request("a", random_prompt(5)))
    with pytest.raises(InvalidRequest, match="'a'"):
        engine.submit(request("a", random_prompt(6)))
    drain(engine)
    engine.submit(request("a", random_prompt(6)))


def test_a_prompt_that_fills_the_window_is_refused():
    with pytest.raises(ContextLengthExceeded) as caught:
        engine_for().submit(request("a", random_prompt(CONTEXT_LENGTH)))
    assert caught.value.prompt_tokens == caught.value.context_length == CONTEXT_LENGTH


def test_what_can_never_fit_in_memory_is_refused_at_once():
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    engine = engine_for(kv_limit_bytes=block)
    with pytest.raises(InsufficientMemory) as caught:
        engine.submit(request("a", random_prompt(300)))
    assert (caught.value.need_bytes, caught.value.have_bytes) == (2 * block, block)


def test_a_lone_sequence_that_outgrows_the_memory_fails_and_does_not_spin():
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    engine = engine_for(kv_limit_bytes=block)
    engine.submit(request("a", random_prompt(250), GREEDY.replace(logit_bias={END_TOKEN: -100.0})))
    steps = drain(engine, max_steps=100)["a"]
    assert isinstance(steps[-1].error, InsufficientMemory)
    assert len(ids_of(steps)) == 7  # 250 + 7 tokens, of which the last has no keys yet
    assert engine.stats()["kv_used_bytes"] == 0


def test_waiting_sequences_start_when_memory_comes_free():
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    engine = engine_for(kv_limit_bytes=block)
    requests = [request(str(n), random_prompt(20, seed=n)) for n in range(3)]
    expected = run(engine_for(), *requests)
    for one in requests:
        engine.submit(one)
    outputs = {one.sequence_id: [] for one in requests}
    while engine.has_work():
        for step in engine.step():
            outputs[step.sequence_id].append(step)
        assert engine.stats()["running"] <= 1
    assert {name: ids_of(steps) for name, steps in outputs.items()} == expected


class OnlyEven:
    """A mask that allows even ids and remembers what was taken."""

    def __init__(self):
        self.accepted = []

    def ready(self, seconds):
        return True

    def allowed(self):
        return (torch.arange(VOCAB_SIZE) % 2 == 0).tolist()

    def accept(self, token_id):
        self.accepted.append(token_id)


def test_a_mask_constrains_its_own_sequence_only():
    mask = OnlyEven()
    free = request("free", random_prompt(9))
    ids = run(engine_for(), request("even", random_prompt(9), mask=mask), free)
    assert ids["even"] == mask.accepted
    assert all(token_id % 2 == 0 for token_id in ids["even"])
    assert ids["free"] == run(engine_for(), free)["free"]


def test_a_mask_that_breaks_fails_its_own_sequence_only():
    class Broken(OnlyEven):
        def accept(self, token_id):
            raise ValueError("the grammar is confused")

    engine = engine_for()
    engine.submit(request("broken", random_prompt(9), mask=Broken()))
    engine.submit(request("fine", random_prompt(9)))
    steps = drain(engine)
    assert "the grammar is confused" in str(steps["broken"][-1].error)
    assert ids_of(steps["fine"]) == run(engine_for(), request("fine", random_prompt(9)))["fine"]


def test_decoding_goes_on_during_a_long_prefill():
    """A running stream gets a token in every step, also while a long prompt is read."""
    engine = engine_for()
    engine.submit(request("talker", random_prompt(5), GREEDY.replace(logit_bias={END_TOKEN: -100.0})))
    engine.step()
    engine.submit(request("reader", random_prompt(1000)))
    for _ in range(2):
        steps = engine.step()
        assert len(ids_of([step for step in steps if step.sequence_id == "talker"])) == 1
        assert any(isinstance(step, PrefillStep) for step in steps)
