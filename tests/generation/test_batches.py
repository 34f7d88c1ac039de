"""Many requests side by side: in order, bounded, each failing alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fakes import ByteTokenizer, ScriptedEngine
from llm_local.errors import InvalidRequest, NumericalError
from llm_local.events import Delta
from llm_local.generation.batches import Batch
from llm_local.generator import TextGenerator
from llm_local.options import GenerationOptions


class RepeatingEngine(ScriptedEngine):
    """Answers a prompt with itself; `failing` prompts fail. Knows how many sequences ran at once."""

    def __init__(self, failing=()):
        super().__init__()
        self.failing = failing
        self.widest = 0

    def submit(self, request):
        text = bytes(request.prompt_ids).decode()
        self.enqueue([NumericalError("Bad.")] if text in self.failing else list(request.prompt_ids))
        super().submit(request)
        self.widest = max(self.widest, len(self._active))


def make_generator(failing=()):
    engine = RepeatingEngine(failing)
    loaded = SimpleNamespace(
        tokenizer=ByteTokenizer(), info=SimpleNamespace(context_length=2000), end_token_ids=frozenset({256})
    )
    return TextGenerator(loaded, engine=engine), engine


def test_answers_come_in_order_whatever_their_length():
    generator, engine = make_generator()
    prompts = [chr(97 + n % 26) * (1 + 7 * n % 40) for n in range(200)]
    seen = []
    batch = generator.generate_batch(prompts, generator.prepare_text, on_event=seen.append)
    assert [(prompt, outcome.text) for prompt, outcome in batch] == [(p, p) for p in prompts]
    assert engine.widest == 32
    assert sum(len(event.token_ids) for event in seen if isinstance(event, Delta)) == sum(map(len, prompts))


def test_jobs_are_taken_when_there_is_room_and_a_long_one_does_not_stop_all():
    generator, engine = make_generator()
    taken = []

    def jobs():
        for n in range(100):
            taken.append(n)
            yield "x" * (500 if n == 0 else 2)

    outcomes = iter(Batch(jobs(), lambda p: generator.stream(generator.prepare_text(p)), width=4))
    assert next(outcomes)[0] == "x" * 500
    assert len(taken) == 16  # four widths ahead of the long one, and no further
    assert engine.widest == 4
    assert len(list(outcomes)) == 99


def test_a_stream_that_stands_in_line_does_not_keep_others_from_being_read():
    """An engine with room for two: a stop string, which only reading finds, ends each reply after a few tokens."""

    class NarrowEngine(RepeatingEngine):
        num_sampled = 0

        def step(self):
            steps = [step for name in list(self._active)[:2] for step in self._step_one(name)]
            self.num_sampled += sum(getattr(step, "token_id", None) is not None for step in steps)
            return steps

    generator, _ = make_generator()
    engine = NarrowEngine()
    generator._driver.engine = engine
    options = GenerationOptions(stop=("STOP",))
    prompts = [f"reply {n} STOP" + " and on" * 100 for n in range(8)]
    batch = generator.generate_batch(prompts, lambda prompt: generator.prepare_text(prompt, options))
    assert [outcome.text for _, outcome in batch] == [f"reply {n} " for n in range(8)]
    assert engine.num_sampled <= 8 * (len("reply 0 STOP") + 3)


def test_a_failure_is_the_outcome_of_its_job_alone():
    generator, _ = make_generator(failing=("bad",))

    def prepare(prompt):
        if prompt == "wrong":
            raise InvalidRequest("No.")
        if prompt == "odd":
            raise ZeroDivisionError
        return generator.prepare_text(prompt)

    outcomes = dict(generator.generate_batch(["a", "bad", "wrong", "odd", "", "b"], prepare))
    kinds = [type(outcome).__name__ for outcome in outcomes.values()]
    assert kinds == [
        "Completion",
        "NumericalError",
        "InvalidRequest",
        "ZeroDivisionError",
        "InvalidRequest",
        "Completion",
    ]
    assert outcomes["a"].text == "a" and outcomes["b"].text == "b"


def test_a_broken_engine_ends_the_batch():
    generator, engine = make_generator()

    def step():
        raise RuntimeError("broken")

    engine.step = step
    with pytest.raises(RuntimeError, match="broken"):
        list(generator.generate_batch(["a"], generator.prepare_text))


def test_cancel_keeps_what_is_whole_and_ends():
    generator, engine = make_generator()
    prompts = ["a", "b", "c" * 400, "d", "e" * 400]
    batch = generator.generate_batch(prompts, generator.prepare_text)
    given = []
    for prompt, outcome in batch:
        given.append((prompt, outcome.text))
        if prompt == "b":
            batch.cancel()
    assert given == [("a", "a"), ("b", "b")]
    assert len(engine.cancelled) >= 2


def test_nothing_in_nothing_out():
    generator, _ = make_generator()
    assert list(generator.generate_batch([], generator.prepare_text)) == []
