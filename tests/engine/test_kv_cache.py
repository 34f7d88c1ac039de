"""Keys and values: growth, truth in the accounts, and forgetting."""

from __future__ import annotations

import pytest
import torch

from engine_driving import engine_for, request
from llm_local.engine.kv_cache import ALLOCATION_TOKENS, KVBudget, SequenceKV, kv_bytes_per_token
from tiny_models import PACKED, random_prompt, tiny_model


def random_kv(length, heads=2, dim=4):
    return torch.randn(heads, length, dim), torch.randn(heads, length, dim)


def test_appending_in_pieces_keeps_everything_in_order():
    state = SequenceKV(KVBudget(None), expected_tokens=10, bytes_per_token=0)
    keys, values = random_kv(1000)
    start = 0
    for length in (1, 1, 254, 1, 300, 443):
        got_keys, got_values = state.append(
            0, keys[:, start : start + length], values[:, start : start + length]
        )
        start += length
    assert torch.equal(got_keys, keys)
    assert torch.equal(got_values, values)


def test_the_budget_always_knows_what_is_allocated():
    """Promised bytes equal added bytes at every append, and free gives all of them back."""
    budget = KVBudget(None)
    token_bytes = 3 * 2 * 2 * 4 * 4  # layers, keys and values, heads, dim, float32
    state = SequenceKV(budget, expected_tokens=300, bytes_per_token=token_bytes)
    for length in (200, 50, 50, 1, 1, 500, 1):
        promised, before = state.bytes_to_append(length), budget.used_bytes
        for layer in range(3):
            state.append(layer, *random_kv(length))
        assert budget.used_bytes - before == promised
        assert budget.used_bytes == state.num_bytes
    state.free()
    assert budget.used_bytes == state.num_bytes == 0


def test_growth_copies_in_proportion_to_the_whole():
    """Appending token by token allocates a logarithmic number of times, not once per token."""
    state = SequenceKV(KVBudget(None), expected_tokens=1, bytes_per_token=0)
    sizes = set()
    for _ in range(6000):
        state.append(0, *random_kv(1, heads=1, dim=1))
        sizes.add(state.num_bytes)
    assert len(sizes) <= 10
    assert max(sizes) <= 2 * 4 * (6000 * 1.5 + ALLOCATION_TOKENS)


def test_rollback_forgets_what_a_failed_forward_wrote():
    """Layers that already have the chunk and layers that do not are equal again."""
    state = SequenceKV(KVBudget(None), expected_tokens=10, bytes_per_token=0)
    keys, values = random_kv(10)
    for layer in range(2):
        state.append(layer, keys[:, :6], values[:, :6])
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
    expected = ALLOCATION_TOKENS * kv_bytes_per_token(tiny_model(model_type))
    assert engine.stats()["kv_used_bytes"] == expected


def test_a_window_keeps_what_its_queries_can_see_and_little_more():
    """Returned keys are exactly those from the first new token's window on; storage stays bounded."""
    state = SequenceKV(KVBudget(None), expected_tokens=5000, bytes_per_token=0)
    keys, values = random_kv(5000)
    start = 0
    for length in [300, 1, 1, 512, 1, 1, 1, 700, *[1] * 3000]:
        got, _ = state.append(
            0, keys[:, start : start + length], values[:, start : start + length], window=64
        )
        first = max(0, start + 1 - 64)
        start += length
        assert torch.equal(got, keys[:, first:start])
        assert state.num_bytes <= 2 * 2 * 4 * 4 * 1024


def test_a_fork_is_a_copy_of_a_beginning():
    budget = KVBudget(None)
    source = SequenceKV(budget, expected_tokens=600, bytes_per_token=0)
    keys, values = random_kv(600)
    source.append(0, keys, values)
    fork = SequenceKV(budget, expected_tokens=400, bytes_per_token=0)
    assert fork.fork(source, 350)
    more_keys, more_values = random_kv(50)
    got, _ = fork.append(0, more_keys, more_values)
    assert torch.equal(got, torch.cat([keys[:, :350], more_keys], dim=1))
    assert torch.equal(source.append(0, *random_kv(1))[0][:, :600], keys), "the source is untouched"
    assert budget.used_bytes == source.num_bytes + fork.num_bytes


def test_a_window_that_moved_on_cannot_be_forked_further_back():
    source = SequenceKV(KVBudget(None), expected_tokens=10, bytes_per_token=0)
    for _ in range(40):
        source.append(0, *random_kv(20), window=16)
    assert SequenceKV(KVBudget(None), 10, 0).fork(source, 800)
    refused = SequenceKV(KVBudget(None), 10, 0)
    assert not refused.fork(source, 100)
    assert refused.num_bytes == 0
