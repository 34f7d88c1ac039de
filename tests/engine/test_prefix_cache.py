"""Reusing what finished and running sequences computed: the same ids, less work, nobody else's memory."""

from __future__ import annotations

import random

import pytest
import torch

from engine_driving import GREEDY, drain, engine_for, ids_of, request, run
from llm_local.engine.factory import make_engine
from llm_local.engine.kv_cache import KVBudget, KVLayout, SequenceKV, kv_layout
from llm_local.engine.prefix_cache import MIN_MATCH_TOKENS, PrefixCache
from llm_local.options import GenerationOptions
from tiny_models import CONTEXT_LENGTH, END_TOKEN, PACKED, random_prompt, tiny_model

PLENTY = 1 << 30
SAMPLED = GenerationOptions(temperature=0.9, seed=3, max_new_tokens=24)


def caching_engine(model_type="llama", kv_limit_bytes=None, prefix_cache_bytes=PLENTY):
    return make_engine(
        tiny_model(model_type),
        context_length=CONTEXT_LENGTH,
        kv_limit_bytes=kv_limit_bytes,
        prefix_cache_bytes=prefix_cache_bytes,
    )


def run_one(engine, one):
    """Its sampled ids and how many of its prompt's tokens came from the cache."""
    engine.submit(one)
    steps = drain(engine)[one.sequence_id]
    return ids_of(steps), steps[-1].report.usage.cached_tokens


@pytest.mark.parametrize("model_type", sorted(PACKED))
def test_cached_equals_cold(model_type):
    """A chat of three turns gives the same ids with and without the cache, and reads only what is new."""
    cold, warm = engine_for(model_type), caching_engine(model_type)
    history = random_prompt(300)
    expected_cached = 0
    for turn in range(3):
        options = SAMPLED if turn == 1 else GREEDY
        ids, cached = run_one(warm, request("a", history, options))
        assert ids == run_one(cold, request("a", history, options))[0], f"turn {turn}"
        assert cached == expected_cached
        history += (*ids, *random_prompt(20, seed=turn + 50))
        # the last sampled token was never computed
        expected_cached = len(history) - 20 - 1


def test_the_whole_prompt_again_computes_one_token():
    engine = caching_engine()
    prompt = random_prompt(200)
    first, _ = run_one(engine, request("a", prompt))
    again, cached = run_one(engine, request("b", prompt))
    assert again == first
    assert cached == len(prompt) - 1


def test_owners_never_share():
    engine = caching_engine()
    prompt = random_prompt(200)
    run_one(engine, request("a", prompt, owner="alice"))
    assert run_one(engine, request("b", prompt, owner="bob"))[1] == 0
    assert run_one(engine, request("c", prompt))[1] == 0
    assert run_one(engine, request("d", prompt, owner="alice"))[1] == len(prompt) - 1


def test_a_running_sequence_is_forked():
    """A sequence that arrives while one with the same beginning runs starts from its memory; both stay right."""
    shared = random_prompt(300)
    one, two = request("1", (*shared, 7, 8)), request("2", (*shared, 9, 10, 11))
    expected = {**run(engine_for(), one), **run(engine_for(), two)}
    engine = caching_engine()
    engine.submit(one)
    early = engine.step()
    engine.submit(two)
    steps = drain(engine)
    assert ids_of([*early, *steps["1"]]) == expected["1"]
    assert ids_of(steps["2"]) == expected["2"]
    assert steps["2"][-1].report.usage.cached_tokens == 300


def test_a_cancelled_sequence_leaves_what_it_computed():
    engine = caching_engine()
    prompt = random_prompt(700)
    engine.submit(request("a", prompt))
    engine.step()
    engine.cancel("a")
    drain(engine)
    ids, cached = run_one(engine, request("b", prompt))
    assert cached == 512
    assert ids == run_one(engine_for(), request("b", prompt))[0]


def test_the_cache_gives_way_to_running_sequences():
    """Memory that finished sequences left is taken back before anyone waits or is refused."""
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    engine = caching_engine(kv_limit_bytes=3 * block, prefix_cache_bytes=3 * block)
    for seed in range(6):
        prompt = random_prompt(500, seed=seed)
        ids, _ = run_one(engine, request("a", prompt))
        assert ids == run_one(engine_for(), request("a", prompt))[0]
        assert engine.stats()["kv_used_bytes"] <= 3 * block


def test_preempted_sequences_and_a_cache_agree_with_a_cold_engine():
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    requests = [
        request(str(n), random_prompt(246, seed=n % 2), GREEDY.replace(logit_bias={END_TOKEN: -100.0}))
        for n in range(4)
    ]
    assert run(caching_engine(kv_limit_bytes=4 * block), *requests) == run(engine_for(), *requests)


def test_a_window_that_moved_on_is_not_reused_in_the_middle():
    """A sliding-window model can go on from the end of a reply, and not from somewhere inside it."""
    engine = caching_engine("mistral")
    prompt = random_prompt(400)
    run_one(engine, request("a", prompt, GREEDY.replace(max_new_tokens=300, logit_bias={END_TOKEN: -100.0})))
    other = (*prompt[:390], *random_prompt(30, seed=9))
    ids, cached = run_one(engine, request("b", other))
    assert cached == 0
    assert ids == run_one(engine_for("mistral"), request("b", other))[0]


def memory(budget, length):
    """One token of one layer is 8 bytes here."""
    state = SequenceKV(budget, expected_tokens=length, layout=KVLayout(1, 1, 1, torch.float32, (None,)))
    state.append(0, torch.zeros(1, length, 1), torch.zeros(1, length, 1))
    state.advance(length)
    return state


def test_find_is_the_longest_common_beginning():
    """Against a naive search over everything ever put, for random sequences over a tiny alphabet."""
    rng = random.Random(5)
    cache, known = PrefixCache(PLENTY), []
    budget = KVBudget(None)
    for _ in range(300):
        base = rng.choice(known) if known and rng.random() < 0.7 else ()
        ids = (
            *base[: rng.randrange(len(base) + 1)],
            *(rng.randrange(3) for _ in range(rng.randrange(1, 40))),
        )
        if rng.random() < 0.5:
            cache.put(None, ids, memory(budget, len(ids)))
            if len(ids) >= MIN_MATCH_TOKENS:
                known.append(ids)
        expected = max((common(ids, other) for other in known), default=0)
        found = cache.find(None, ids)
        assert (found[1] if found else 0) == (expected if expected >= MIN_MATCH_TOKENS else 0)
    assert cache.num_bytes == budget.used_bytes
    cache.clear()
    assert budget.used_bytes == 0


def common(one, other):
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def test_the_cache_keeps_to_its_limit_and_accounts_for_every_byte():
    rng = random.Random(6)
    budget = KVBudget(None)
    cache = PrefixCache(20 * 256 * 8)
    for _ in range(400):
        length = rng.randrange(1, 1500)
        ids = tuple(rng.randrange(2) for _ in range(length))
        cache.put(rng.choice(["a", "b", None]), ids, memory(budget, length))
        cache.find("a", ids)
        assert cache.num_bytes == budget.used_bytes <= 20 * 256 * 8
    while cache.evict():
        assert cache.num_bytes == budget.used_bytes
    assert budget.used_bytes == 0
    assert cache.find("a", ids) is None


def test_a_shared_beginning_outlives_what_followed_it():
    """Eviction cuts an entry down to the part that others came back for, then drops it."""
    budget = KVBudget(None)
    cache = PrefixCache(PLENTY)
    system = random_prompt(300)
    cache.put(None, (*system, *random_prompt(700, seed=1)), memory(budget, 1000))
    assert cache.find(None, (*system, *random_prompt(50, seed=2)))[1] == 300
    assert cache.evict()
    assert cache.find(None, system)[1] == 300
    assert cache.num_bytes == 512 * 8
    assert cache.evict()
    assert not cache.evict()
    assert budget.used_bytes == 0


def test_the_least_recently_used_goes_first():
    budget = KVBudget(None)
    cache = PrefixCache(PLENTY)
    old, new = random_prompt(100, seed=1), random_prompt(100, seed=2)
    cache.put(None, old, memory(budget, 100))
    cache.put(None, new, memory(budget, 100))
    cache.find(None, old)
    cache.evict()
    assert cache.find(None, old)[1] == 100
    assert cache.find(None, new) is None


def test_a_flood_of_one_owner_leaves_others_what_they_have():
    budget = KVBudget(None)
    mine = random_prompt(100, seed=1)
    cache = PrefixCache(4 * memory(budget, 256).num_bytes)
    cache.put("me", mine, memory(budget, 100))
    for seed in range(2, 40):
        cache.put("flood", random_prompt(200, seed=seed), memory(budget, 200))
    assert cache.find("me", mine)[1] == 100
    assert cache.find("flood", random_prompt(200, seed=39))[1] == 200
    assert cache.find("flood", random_prompt(200, seed=2)) is None


def test_a_tree_of_many_small_steps_stays_flat():
    """One request per keystroke: thousands of growing entries are one line, and looking beside it works."""
    budget = KVBudget(None)
    cache = PrefixCache(PLENTY)
    ids = tuple(n % 7 for n in range(3000))
    for length in range(20, 3000):
        cache.put(None, ids[:length], memory(budget, length))
    assert len(cache._entries) == 1
    assert len(cache._roots[None].children) == 1
    assert cache.find(None, (*ids[:25], 9, 9))[1] == 25
    assert cache.find(None, ids)[1] == 2999


def test_a_windowed_models_system_prompt_is_found_beside_the_long_chat_that_followed_it():
    """What a longer sequence no longer has is kept in the shorter one that has it."""
    engine, cold = caching_engine("mistral"), engine_for("mistral")
    system = random_prompt(300)
    run_one(engine, request("a", system))
    long_chat = (*system, *random_prompt(600, seed=3))
    run_one(engine, request("b", long_chat))
    new_chat = (*system, *random_prompt(30, seed=4))
    ids, cached = run_one(engine, request("c", new_chat))
    assert cached == 300
    assert ids == run_one(cold, request("c", new_chat))[0]


def test_identical_prompts_that_preempt_each_other_stay_within_the_budget():
    """A preempted sequence that comes back as a copy of a running one is priced with its reply."""
    block = 256 * kv_layout(tiny_model("llama")).bytes_per_token
    endless = GREEDY.replace(max_new_tokens=300, logit_bias={END_TOKEN: -100.0})
    requests = [request(str(n), random_prompt(400), endless) for n in range(3)]
    engine = caching_engine(kv_limit_bytes=6 * block, prefix_cache_bytes=3 * block)
    for one in requests:
        engine.submit(one)
    outputs = {one.sequence_id: [] for one in requests}
    while engine.has_work():
        for step in engine.step():
            outputs[step.sequence_id].append(step)
        assert engine.stats()["kv_used_bytes"] <= 6 * block
    expected = run(engine_for(), *requests)
    assert {name: ids_of(steps) for name, steps in outputs.items()} == expected


def test_no_memory_for_a_copy_means_reading_again(monkeypatch):
    engine = caching_engine()
    prompt = random_prompt(300)
    first, _ = run_one(engine, request("a", prompt))

    def no_memory(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(SequenceKV, "fork", no_memory)
    assert run_one(engine, request("b", prompt)) == (first, 0)
