"""Each filter against transformers' own, on the same logits."""

from __future__ import annotations

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from llm_local.sampling.filters import (
    apply_min_p,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    apply_typical_p,
)

VOCAB = 200
LOGITS = {
    "flat": lambda: random_logits(1, 0.1),
    "usual": lambda: random_logits(2, 3.0),
    "peaked": lambda: random_logits(3, 30.0),
    "one token": lambda: torch.tensor([-3.5]),
    "half impossible": lambda: random_logits(4, 3.0).masked_fill(torch.arange(VOCAB) % 2 == 0, -torch.inf),
    "one possible": lambda: torch.full((VOCAB,), -torch.inf).index_fill(0, torch.tensor([17]), -2.0),
    "far from zero": lambda: random_logits(5, 3.0) - 500.0,
}


def random_logits(seed, scale, vocab=VOCAB):
    return torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.fixture(params=LOGITS)
def logits(request):
    return LOGITS[request.param]()


def reference(processor, logits):
    """What transformers makes of one row: the others are minus infinity."""
    return processor(torch.zeros(1, 0, dtype=torch.long), logits[None].clone())[0]


def descending(logits):
    return logits.sort(descending=True, stable=True).values


def assert_same_distribution(ours, theirs):
    """Both keep the same candidates with the same probabilities. Impossible ones count as not kept."""
    ours, theirs = (descending(x[x > -torch.inf]) for x in (ours, theirs))
    assert len(ours) == len(theirs)
    torch.testing.assert_close(ours.softmax(-1), theirs.softmax(-1), rtol=1e-4, atol=1e-7)


def test_top_k_keeps_what_transformers_keeps(logits):
    """The k highest logits, in descending order, each under its own id."""
    for k in [1, 2, 40, VOCAB - 1, VOCAB, VOCAB + 1, 1_000_000]:
        values, ids = apply_top_k(logits, k)
        assert torch.equal(values, logits[ids])
        assert torch.equal(values, descending(values))
        assert len(set(ids.tolist())) == len(ids) == min(k, len(logits))
        assert_same_distribution(values, reference(TopKLogitsWarper(k), logits))


def test_top_k_zero_keeps_all(logits):
    """0 is off: every candidate comes back, sorted."""
    values, ids = apply_top_k(logits, 0)
    assert sorted(ids.tolist()) == list(range(len(logits)))
    assert torch.equal(values, descending(logits))


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5, 6, 50, 5000])
def test_top_k_takes_the_lowest_ids_among_equals(k):
    """A tie is broken by id, inside the list and at its end, so k = 1 is the greedy choice."""
    logits = torch.zeros(5000)
    logits[[4000, 700, 3]] = 5.0
    logits[[4999, 1]] = 2.0
    expected = sorted(range(5000), key=lambda i: (-logits[i], i))
    assert apply_top_k(logits, k)[1].tolist() == expected[: k or None]


def test_top_p_keeps_what_transformers_keeps(logits):
    """The fewest most likely candidates that together reach p; never none."""
    for p in [1e-6, 0.1, 0.5, 0.9, 0.99, 0.9999]:
        assert_same_distribution(apply_top_p(descending(logits), p), reference(TopPLogitsWarper(p), logits))


def test_top_p_close_to_one_drops_at_most_what_it_may(logits):
    """Whatever float32 makes of such a p, what is dropped has a mass of no more than rounding."""
    for p in [1 - 1e-7, 1 - 2**-24, 1 - 2**-53]:
        kept = apply_top_p(descending(logits), p)
        dropped = descending(logits).softmax(-1)[len(kept) :]
        assert float(dropped.sum()) <= 1e-6


def test_top_p_stops_at_the_candidate_that_reaches_p():
    """Probabilities 0.4, 0.3, 0.2, 0.1: the candidate that crosses p is the last one kept."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    counts = {p: len(apply_top_p(logits, p)) for p in (0.39, 0.41, 0.69, 0.71, 0.89, 0.91)}
    assert counts == {0.39: 1, 0.41: 2, 0.69: 2, 0.71: 3, 0.89: 3, 0.91: 4}


def test_top_p_among_equals_keeps_as_many_as_transformers():
    """Ten equal candidates at p = 0.35: four of them."""
    logits = torch.zeros(10)
    assert len(apply_top_p(logits, 0.35)) == 4
    assert_same_distribution(apply_top_p(logits, 0.35), reference(TopPLogitsWarper(0.35), logits))


def test_min_p_keeps_what_transformers_keeps(logits):
    """Candidates at least p times as likely as the most likely one; with p = 1 only that one and its equals."""
    for p in [1e-6, 0.01, 0.1, 0.5, 0.99, 1.0]:
        assert_same_distribution(apply_min_p(descending(logits), p), reference(MinPLogitsWarper(p), logits))


def test_min_p_of_one_keeps_all_equals():
    """Equally likely candidates stand or fall together."""
    assert len(apply_min_p(torch.tensor([2.0, 2.0, 2.0, 1.0]), 1.0)) == 3


def test_typical_p_keeps_what_transformers_keeps(logits):
    """Candidates whose surprise is nearest the entropy, in their places; never none."""
    for p in [1e-6, 0.2, 0.5, 0.9, 0.99, 0.9999]:
        ordered = descending(logits)
        ours, theirs = apply_typical_p(ordered, p), reference(TypicalLogitsWarper(p), ordered)
        assert len(ours) == len(ordered)
        assert_same_distribution(ours, theirs)
        assert torch.equal(ours > -torch.inf, theirs > -torch.inf)


def test_typical_p_may_drop_the_most_likely_candidate():
    """One likely candidate over a wide tail: it surprises too little, and goes. No prefix filter does this."""
    logits = torch.cat([torch.tensor([0.3]), torch.full((700,), 0.001)]).log()
    kept = apply_typical_p(logits, 0.2) > -torch.inf
    assert not kept[0]
    assert kept[1:].any()


def test_temperature_is_the_division(logits):
    """The distribution is the one of the divided logits."""
    for temperature in [0.05, 0.7, 1.0, 2.5, 10.0]:
        assert_same_distribution(
            apply_temperature(logits, temperature), reference(TemperatureLogitsWarper(temperature), logits)
        )


def test_the_smallest_temperatures_are_the_most_likely_token(logits):
    """Temperature towards 0 is greedy: no overflow, no NaN, all the mass on the highest logit."""
    for temperature in [1e-30, 1e-38, 1e-42, 5e-324]:
        probabilities = apply_temperature(logits, temperature).softmax(-1)
        assert float(probabilities[logits.argmax()]) == 1.0
        assert not probabilities.isnan().any()


def test_filters_are_pure(logits):
    """No filter changes the tensor it is given: log-probabilities read the same logits afterwards."""
    before = descending(logits)
    given = before.clone()
    for apply, value in (
        (apply_top_k, 3),
        (apply_temperature, 0.5),
        (apply_top_p, 0.5),
        (apply_min_p, 0.5),
        (apply_typical_p, 0.5),
    ):
        apply(given, value)
        assert torch.equal(given, before), apply.__name__
