"""Batches: every text once, little padding, bounded, and results that need not wait for the last text."""

from __future__ import annotations

import random

import pytest

from llm_local.embedding.batches import WINDOW_BATCHES, plan_batches


@pytest.mark.parametrize("seed", range(20))
def test_every_text_is_in_one_batch_and_no_batch_is_too_large(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.choice([1, 3, 8, 40, 200]) for _ in range(rng.randrange(1, 300))]
    budget = rng.choice([1, 16, 100, 1000])
    batches = list(plan_batches(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= budget or len(batch) == 1


def test_texts_of_one_length_share_a_batch() -> None:
    assert list(plan_batches([5, 1, 5, 1, 5, 1], 15)) == [[0, 2, 4], [1, 3, 5]]


def test_what_is_computed_is_never_far_ahead_of_what_can_be_given_out() -> None:
    rng = random.Random(3)
    lengths = [rng.randrange(1, 50) for _ in range(5000)]
    budget, waiting, most, given = 200, set(), 0, 0
    for batch in plan_batches(lengths, budget):
        waiting |= set(batch)
        while given in waiting:
            waiting.remove(given)
            given += 1
        most = max(most, sum(lengths[index] for index in waiting))
    assert given == 5000
    assert 0 < most <= WINDOW_BATCHES * budget


def test_no_texts_are_no_batches() -> None:
    assert list(plan_batches([], 10)) == []
