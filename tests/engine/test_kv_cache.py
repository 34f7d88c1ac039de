"""Keys and values: growth, truth in the accounts, and forgetting."""

from __future__ import annotations

import pytest
import torch

from engine_driving import engine_for, request
from llm_local.engine import kv_cache
from llm_local.engine.kv_cache import ALLOCATION_TOKENS, KVBudget, KVLayout, SequenceKV, kv_layout
from tiny_models import PACKED, random_prompt, tiny_model

NO_LAYERS = KVLayout(2, 4, 4, torch.float32, ())


def random_kv(length, heads=2, dim=4):
    return torch.randn(heads, length, dim), torch.randn(heads, length, dim)


def append(state, keys, values, window=None):
    """A whole forward pass of a model with one layer; what its queries see."""
    seen = state.append(0, keys, values, window)
    state.advance(keys.shape[1])
    return seen


def test_appending_in_pieces_keeps_everything_in_order():
    state = SequenceKV(KVBudget(None), expected_tokens=10, layout=NO_LAYERS)
    keys, values = random_kv(1000)
    start = 0
    for length in (1, 1, 254, 1, 300, 443):
        here = slice(start, start + length)
        got_keys, got_values = append(state, keys[:, here], values[:, here])
        start += length
    assert torch.equal(got_keys, keys)
    assert torch.equal(got_values, values)


def test_the_budget_always_knows_what_is_allocated():
    """Promised bytes equal added bytes at every append, and free gives all of them back."""
    budget = KVBudget(None)
    state = SequenceKV(budget, expected_tokens=300, layout=KVLayout(2, 4, 4, torch.float32, (None,) * 3))
    for length in (200, 50, 50, 1, 1, 500, 1):
        promised, before = state.bytes_to_append(length), budget.used_bytes
        for layer in range(3):
            state.append(layer, *random_kv(length))
        state.advance(length)
        assert budget.used_bytes - before == promised
        assert budget.used_bytes == state.num_bytes
    state.free()
    assert budget.used_bytes == state.num_bytes == 0


@pytest.mark.parametrize("window", [None, 64])
def test_room_for_all_layers_costs_what_appending_costs(window):
    """Whoever writes to storage directly finds the same room, at the same price, as one layer after the other."""
    layout = KVLayout(2, 4, 4, torch.bfloat16, (None, window, None))
    budgets = KVBudget(None), KVBudget(None)
    at_once, in_turn = (SequenceKV(budget, expected_tokens=300, layout=layout) for budget in budgets)
    for length in (200, 200, 1, 1, 500, 1, 300):
        assert at_once.bytes_to_append(length) == in_turn.bytes_to_append(length)
        at_once.make_room(length)
        assert at_once.bytes_to_append(length) == 0
        for layer, own in enumerate(layout.windows):
            in_turn.append(layer, *random_kv(length), window=own)
        at_once.advance(length)
        in_turn.advance(length)
        assert budgets[0].used_bytes == budgets[1].used_bytes
    assert at_once.windows == in_turn.windows


def test_room_that_is_not_there_leaves_nothing(monkeypatch):
    budget = KVBudget(None)
    state = SequenceKV(budget, expected_tokens=10, layout=KVLayout(2, 4, 4, torch.float32, (None,) * 3))
    plain_empty, calls = torch.empty, []

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise RuntimeError("out of memory")
        return plain_empty(*args, **kwargs)

    monkeypatch.setattr(torch, "empty", failing)
    with pytest.raises(RuntimeError):
        state.make_room(10)
    assert budget.used_bytes == state.num_bytes == 0
    state.make_room(10)
    assert len(state.windows) == 3


def test_storage_has_a_dtype_of_its_own():
    """A model that computes in float32 may keep its keys and values in 16 bits."""
    layout = KVLayout(2, 4, 4, torch.bfloat16, (None,))
    state = SequenceKV(KVBudget(None), expected_tokens=10, layout=layout)
    keys, values = random_kv(10)
    got_keys, got_values = append(state, keys, values)
    assert torch.equal(got_keys, keys.bfloat16())
    assert torch.equal(got_values, values.bfloat16())
    assert state.num_bytes == ALLOCATION_TOKENS * layout.bytes_per_token


def test_growth_copies_in_proportion_to_the_whole():
    """Appending token by token allocates a logarithmic number of times, not once per token."""
    state = SequenceKV(KVBudget(None), expected_tokens=1, layout=NO_LAYERS)
    sizes = set()
    for _ in range(6000):
        append(state, *random_kv(1, heads=1, dim=1))
        sizes.add(state.num_bytes)
    assert len(sizes) <= 10
    assert max(sizes) <= 2 * 4 * (6000 * 1.5 + ALLOCATION_TOKENS)


def test_rollback_forgets_what_a_failed_forward_wrote():
    """Layers that already have the chunk and layers that do not are equal again."""
    state = SequenceKV(KVBudget(None), expected_tokens=10, layout=NO_LAYERS)
    keys, values = random_kv(10)
    for layer in range(2):
        state.append(layer, keys[:, :6], values[:, :6])
    state.advance(6)
    state.append(0, *random_kv(4))  # layer 1 never gets it
    assert state.rollback(6)
    for layer in range(2):
        got_keys, _ = state.append(layer, keys[:, 6:], values[:, 6:])
        assert torch.equal(got_keys, keys)


@pytest.mark.parametrize("model_type", sorted(PACKED))
def test_the_price_of_a_token_is_known_before_the_first(model_type):
    """The estimate from the configuration is what the first forward really allocates."""
    engine = engine_for(model_type)
    engine.submit(request("a", random_prompt(100)))
    engine.step()
    expected = ALLOCATION_TOKENS * kv_layout(tiny_model(model_type)).bytes_per_token
    assert engine.stats()["kv_used_bytes"] == expected


def test_a_window_keeps_what_its_queries_can_see_and_little_more():
    """Returned keys are exactly those from the first new token's window on; storage stays bounded."""
    state = SequenceKV(KVBudget(None), expected_tokens=5000, layout=NO_LAYERS)
    keys, values = random_kv(5000)
    start = 0
    for length in [300, 1, 1, 512, 1, 1, 1, 700, *[1] * 3000]:
        here = slice(start, start + length)
        got, _ = append(state, keys[:, here], values[:, here], window=64)
        first = max(0, start + 1 - 64)
        start += length
        assert torch.equal(got, keys[:, first:start])
        assert state.num_bytes <= 2 * 2 * 4 * 4 * 1024


def test_a_fork_is_a_copy_of_a_beginning():
    budget = KVBudget(None)
    source = SequenceKV(budget, expected_tokens=600, layout=NO_LAYERS)
    keys, values = random_kv(600)
    append(source, keys, values)
    fork = SequenceKV(budget, expected_tokens=400, layout=NO_LAYERS)
    price, before = source.bytes_to_fork(350, room=400), budget.used_bytes
    assert source.can_fork(350)
    fork.fork(source, 350, room=400)
    assert budget.used_bytes - before == price == fork.num_bytes
    more_keys, more_values = random_kv(50)
    got, _ = append(fork, more_keys, more_values)
    assert torch.equal(got, torch.cat([keys[:, :350], more_keys], dim=1))
    assert torch.equal(append(source, *random_kv(1))[0][:, :600], keys), "the source is untouched"
    assert budget.used_bytes == source.num_bytes + fork.num_bytes


def test_a_window_that_moved_on_cannot_be_forked_further_back():
    source = SequenceKV(KVBudget(None), expected_tokens=10, layout=NO_LAYERS)
    assert not source.can_fork(0), "there is nothing to fork"
    for _ in range(40):
        append(source, *random_kv(20), window=16)
    assert source.can_fork(800)
    assert not source.can_fork(100)
    assert not source.can_fork(801), "that is not computed yet"


def test_a_fork_that_finds_no_memory_leaves_nothing(monkeypatch):
    """All layers or none: half a copy would be mistaken for computed tokens."""
    budget = KVBudget(None)
    source = SequenceKV(budget, expected_tokens=100, layout=NO_LAYERS)
    for layer in range(3):
        source.append(layer, *random_kv(100))
    source.advance(100)
    plain_empty, calls = kv_cache._empty, []

    def failing(like, capacity):
        calls.append(capacity)
        if len(calls) == 4:  # the second layer's values
            raise RuntimeError("out of memory")
        return plain_empty(like, capacity)

    monkeypatch.setattr(kv_cache, "_empty", failing)
    fork = SequenceKV(budget, expected_tokens=100, layout=NO_LAYERS)
    with pytest.raises(RuntimeError):
        fork.fork(source, 90, room=120)
    assert fork.num_bytes == 0
    assert budget.used_bytes == source.num_bytes


def test_shrinking_keeps_the_beginning_and_gives_the_rest_back():
    budget = KVBudget(None)
    state = SequenceKV(budget, expected_tokens=1000, layout=NO_LAYERS)
    keys, values = random_kv(1000)
    append(state, keys, values)
    state.shrink(300)
    assert budget.used_bytes == state.num_bytes == 512 * 2 * 2 * 4 * 4
    got, _ = append(state, *random_kv(1))
    assert torch.equal(got[:, :300], keys[:, :300])


@pytest.mark.parametrize("model_type", ["mistral", "gemma3_text", "gpt_oss", "llama"])
@pytest.mark.parametrize("length", [5, 300, 1000])
def test_a_window_is_cheaper_and_the_price_says_so(model_type, length):
    """Prices with windows are what the first chunk really allocates."""
    engine = engine_for(model_type)
    expected = kv_layout(tiny_model(model_type)).first_bytes(min(length, 512), length + 1)
    engine.submit(request("a", random_prompt(length)))
    engine.step()
    assert engine.stats()["kv_used_bytes"] == expected
