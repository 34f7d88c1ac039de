"""Who goes first: priority, fairness between owners, arrival; and nobody is left behind."""

from __future__ import annotations

import random

from engine_driving import GREEDY, drain, engine_for, ids_of, request, run
from llm_local.engine.kv_cache import KVBudget, kv_layout
from llm_local.engine.protocol import PrefillStep, TokenRequest
from llm_local.engine.scheduler import MAX_RUNNING, Scheduler
from llm_local.engine.sequence import Sequence
from llm_local.options import GenerationOptions
from tiny_models import END_TOKEN, random_prompt, tiny_model


class Weightless:
    """Sequence memory that costs nothing, so that only the order is at stake."""

    num_bytes = 0

    def bytes_to_append(self, num_new):
        return 0

    def rollback(self, length):
        return True

    def free(self):
        pass


def sequence(name, length=100, owner=None, priority=0):
    one = TokenRequest(name, tuple(range(length)), GenerationOptions(), owner=owner, priority=priority)
    return Sequence(one, Weightless(), sampler=None, max_tokens=10_000)


def order_of_reading(scheduler, max_steps=1000):
    """Names in the order in which their prompts are complete, as the engine would drive it."""
    done = []
    for _ in range(max_steps):
        chunks = scheduler.schedule()
        if not chunks:
            return done
        for chunk in chunks:
            one = chunk.sequence
            one.num_computed += chunk.length
            if one.num_pending == 0:
                done.append(one.sequence_id)
                scheduler.remove(one, keep=False)
    raise AssertionError("no end")


def test_who_came_first_is_read_first():
    scheduler = Scheduler(KVBudget(None), max_chunk_tokens=64)
    for name in "abcd":
        scheduler.add(sequence(name))
    assert order_of_reading(scheduler) == list("abcd")


def test_priority_goes_before_arrival():
    scheduler = Scheduler(KVBudget(None), max_chunk_tokens=64)
    for name, priority in zip("abcd", (0, 1, -1, 1), strict=True):
        scheduler.add(sequence(name, priority=priority))
    assert order_of_reading(scheduler) == ["b", "d", "a", "c"]


def test_an_owner_with_many_requests_does_not_keep_another_waiting():
    """A's flood of 30 came first; B's two requests are read after at most one of A's each."""
    scheduler = Scheduler(KVBudget(None), max_chunk_tokens=100)
    for n in range(30):
        scheduler.add(sequence(f"A{n}", owner="A"))
    for n in range(2):
        scheduler.add(sequence(f"B{n}", owner="B"))
    order = order_of_reading(scheduler)
    assert order.index("B0") <= 1
    assert order.index("B1") <= 3
    assert sorted(order) == sorted([f"A{n}" for n in range(30)] + ["B0", "B1"])


def test_coming_back_gives_no_credit_for_the_time_away():
    """An owner who was idle while another was served does not get a burst of its own for it."""
    scheduler = Scheduler(KVBudget(None), max_chunk_tokens=100)
    for n in range(20):
        scheduler.add(sequence(f"A{n}", owner="A"))
    for _ in range(10):
        for chunk in scheduler.schedule():
            chunk.sequence.num_computed += chunk.length
            scheduler.remove(chunk.sequence, keep=False)
    for n in range(10):
        scheduler.add(sequence(f"B{n}", owner="B"))
    order = order_of_reading(scheduler)
    assert {name[0] for name in order[:3]} == {"A", "B"}


def test_decodes_come_first_and_prefill_has_one_chunk_for_all():
    scheduler = Scheduler(KVBudget(None), max_chunk_tokens=64)
    talker = sequence("talker", length=1)
    scheduler.add(talker)
    scheduler.schedule()
    for name in "ab":
        scheduler.add(sequence(name, length=50))
    chunks = [(chunk.sequence.sequence_id, chunk.length) for chunk in scheduler.schedule()]
    assert chunks == [("talker", 1), ("a", 50), ("b", 14)]


def test_no_more_run_than_is_good_for_them():
    scheduler = Scheduler(KVBudget(None), max_chunk_tokens=10_000)
    for n in range(MAX_RUNNING + 5):
        scheduler.add(sequence(str(n), length=2))
    assert len(scheduler.schedule()) == len(scheduler.running) == MAX_RUNNING
    assert len(scheduler.waiting) == 5


def test_the_important_one_keeps_its_memory():
    """When memory runs out the lower priority is preempted although it is older, and both finish right."""
    endless = GREEDY.replace(logit_bias={END_TOKEN: -100.0})
    low = request("low", random_prompt(250, seed=1), endless)
    high = request("high", random_prompt(250, seed=2), endless, priority=5)
    expected = run(engine_for(), low, high)
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    engine = engine_for(kv_limit_bytes=3 * block)
    engine.submit(low)
    steps = engine.step()
    engine.submit(high)
    finished = []
    while engine.has_work():
        for step in engine.step():
            steps.append(step)
            if not isinstance(step, PrefillStep) and step.last:
                finished.append(step.sequence_id)
    assert finished == ["high", "low"]
    for name in ("low", "high"):
        assert ids_of([s for s in steps if s.sequence_id == name]) == expected[name]


def test_random_traffic_under_little_memory_all_comes_out_right():
    """Forty sequences of random sizes, owners and priorities through a budget of a few: same ids as alone."""
    rng = random.Random(1)
    block = 256 * kv_layout(tiny_model("gemma2")).bytes_per_token
    requests = [
        request(
            str(n),
            random_prompt(rng.choice([3, 100, 250, 255, 400]), seed=n),
            GREEDY.replace(max_new_tokens=rng.choice([1, 5, 20])),
            owner=rng.choice("ab"),
            priority=rng.randrange(3),
        )
        for n in range(40)
    ]
    expected = run(engine_for("gemma2"), *requests)
    engine = engine_for("gemma2", kv_limit_bytes=4 * block)
    for one in requests:
        engine.submit(one)
    assert {name: ids_of(steps) for name, steps in drain(engine).items()} == expected
    assert engine.stats()["kv_used_bytes"] == 0
