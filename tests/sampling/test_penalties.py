"""Penalties and bias by their definitions."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from llm_local.sampling.penalties import (
    apply_frequency_penalty,
    apply_logit_bias,
    apply_presence_penalty,
    apply_repetition_penalty,
)

VOCAB = 50


@pytest.fixture
def logits():
    row = torch.randn(VOCAB, generator=torch.Generator().manual_seed(11)) * 4
    row[5], row[6], row[7] = 0.0, -torch.inf, -0.0
    return row


def seen_mask(ids):
    return torch.zeros(VOCAB, dtype=torch.bool).index_fill(0, torch.tensor(ids, dtype=torch.long), True)


@pytest.mark.parametrize("penalty", [0.01, 0.5, 1.0, 1.3, 10.0])
@pytest.mark.parametrize("ids", [[], [5, 6, 7], [0, 0, 0, 1, 2], list(range(VOCAB))])
def test_repetition_penalty_is_the_one_of_transformers(logits, penalty, ids):
    """Positive logits of seen tokens are divided, negative ones multiplied; how often they were seen is no matter."""
    expected = logits
    if ids:
        expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([ids]), logits[None].clone())[0]
    assert torch.equal(apply_repetition_penalty(logits, seen_mask(ids), penalty), expected)


@pytest.mark.parametrize("penalty", [1e-38, 1e-45, 5e-324])
def test_the_smallest_repetition_penalties_stay_numbers(logits, penalty):
    """An allowed penalty never makes plus infinity or NaN; an impossible token stays impossible."""
    out = apply_repetition_penalty(logits, seen_mask(list(range(VOCAB))), penalty)
    assert not out.isnan().any()
    assert float(out.max()) < float("inf")
    assert float(out[6]) == float("-inf")
    assert torch.equal(out > 0, logits > 0)


def test_presence_penalty_is_the_openai_definition(logits):
    """mu[j] - [c[j] > 0] * alpha: once, however often the token came."""
    counts = torch.zeros(VOCAB)
    counts[3], counts[4] = 1, 9
    for alpha in (-2.0, 0.4, 2.0):
        expected = [float(x) - (alpha if c > 0 else 0.0) for x, c in zip(logits, counts, strict=True)]
        torch.testing.assert_close(apply_presence_penalty(logits, counts, alpha), torch.tensor(expected))


def test_frequency_penalty_is_the_openai_definition(logits):
    """mu[j] - c[j] * alpha: once for each time the token came."""
    counts = torch.zeros(VOCAB)
    counts[3], counts[4] = 1, 9
    for alpha in (-2.0, 0.4, 2.0):
        expected = [float(x) - alpha * float(c) for x, c in zip(logits, counts, strict=True)]
        torch.testing.assert_close(apply_frequency_penalty(logits, counts, alpha), torch.tensor(expected))


def test_logit_bias_adds_to_single_tokens(logits):
    """Exactly the named logits change, by exactly the amount; impossible stays impossible."""
    out = apply_logit_bias(logits, {0: 100.0, 6: 100, 49: -0.5})
    expected = logits.clone()
    expected[0] += 100.0
    expected[49] -= 0.5
    assert torch.equal(out, expected)


def test_penalties_are_pure(logits):
    """None changes the tensor it is given."""
    before, counts = logits.clone(), torch.ones(VOCAB)
    apply_logit_bias(logits, {1: 3.0})
    apply_repetition_penalty(logits, seen_mask([1, 2]), 1.5)
    apply_presence_penalty(logits, counts, 1.0)
    apply_frequency_penalty(logits, counts, 1.0)
    assert torch.equal(logits, before)
    assert torch.equal(counts, torch.ones(VOCAB))
