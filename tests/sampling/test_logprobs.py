"""Log-probabilities are the model's own, whatever the sampling options do."""

from __future__ import annotations

import pytest
import torch

from llm_local.options import GenerationOptions
from llm_local.sampling.logprobs import token_logprob
from llm_local.sampling.sampler import Sampler

VOCAB = 300


def random_logits(seed, scale=5.0):
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * scale


def exact(logits):
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("shift", [0.0, -120.0, 5000.0])
@pytest.mark.parametrize("scale", [0.01, 5.0, 60.0])
def test_they_equal_log_softmax(scale, shift):
    """Within 1e-5 of float64, relative for the very unlikely, however far the logits lie from zero; never above 0."""
    for seed in range(20):
        logits = random_logits(seed, scale) + shift
        for token_id in (0, int(logits.argmax()), int(logits.argmin())):
            logprob = token_logprob(logits, token_id, 0).logprob
            assert logprob <= 0
            assert logprob == pytest.approx(float(exact(logits)[token_id]), abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("num_top", [0, 1, 5, 20, VOCAB, VOCAB + 7])
def test_the_top_is_in_order_and_as_long_as_asked(num_top):
    """Best first, under the right ids, at most the vocabulary; none when none is asked."""
    logits = random_logits(1)
    top = token_logprob(logits, 3, num_top).top
    expected = exact(logits).sort(descending=True)
    assert [token_id for token_id, _ in top] == expected.indices[:num_top].tolist()
    assert [logprob for _, logprob in top] == pytest.approx(expected.values[:num_top].tolist(), abs=1e-5)


def test_the_first_of_the_top_is_the_greedy_choice_on_ties():
    """Equal alternatives come by id, as the greedy choice is made."""
    logits = torch.zeros(5000)
    logits[[4000, 700, 3]] = 5.0
    assert [token_id for token_id, _ in token_logprob(logits, 700, 4).top] == [3, 700, 4000, 0]


OPTIONS = {
    "plain": {},
    "greedy": {"temperature": 0.0},
    "hot": {"temperature": 3.0},
    "filtered": {"top_k": 2, "top_p": 0.3, "min_p": 0.4, "typical_p": 0.5},
    "penalized": {"repetition_penalty": 2.0, "presence_penalty": 2.0, "frequency_penalty": 2.0},
    "biased": {"logit_bias": {7: 100.0, 8: -100.0}},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_changes_them(name):
    """Token by token they are those of the raw logits, mask and memory of penalties included."""
    options = GenerationOptions(seed=3, logprobs=True, top_logprobs=4, **OPTIONS[name])
    sampler = Sampler(options, (1, 2, 3), VOCAB)
    allowed = torch.arange(VOCAB) % 3 == 1
    for step in range(12):
        logits = random_logits(step)
        before = logits.clone()
        sampled = sampler.sample(logits, allowed if step % 2 else None)
        assert torch.equal(logits, before), "the model's own logits were changed"
        assert sampled.logprob.token_id == sampled.token_id
        assert sampled.logprob.logprob == pytest.approx(float(exact(logits)[sampled.token_id]), abs=1e-5)
        best = exact(logits).topk(4)
        assert [token_id for token_id, _ in sampled.logprob.top] == best.indices.tolist()
        assert [logprob for _, logprob in sampled.logprob.top] == pytest.approx(
            best.values.tolist(), abs=1e-5
        )


def test_none_without_being_asked():
    """No log-probability is computed or returned unless `logprobs` is true."""
    assert Sampler(GenerationOptions(seed=1), (), VOCAB).sample(random_logits(1)).logprob is None
