"""The written order, the draw, and whose randomness it is."""

from __future__ import annotations

import copy
import math
from random import Random
from types import SimpleNamespace

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from llm_local.errors import EngineError, NumericalError
from llm_local.options import BOUNDS, GenerationOptions
from llm_local.sampling import sampler as sampler_module
from llm_local.sampling.sampler import LIKELY, UNDECIDED, Sampler

VOCAB = 40
PROMPT = (1, 2, 3, 3, 9)


def random_logits(seed, vocab=VOCAB, scale=2.0):
    return torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * scale


def sampler_for(prompt=(), vocab=VOCAB, **options):
    return Sampler(GenerationOptions(**options), prompt, vocab)


def draw(sampler, logits, count, allowed=None):
    return [sampler.sample(logits, allowed).token_id for _ in range(count)]


def only(*ids, vocab=VOCAB):
    return [token_id in ids for token_id in range(vocab)]


# --- the written order ------------------------------------------------------------------------------------------

GRID = 1000
ORDERS = {
    "plain": {},
    "each filter": {"top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.8, "temperature": 1.4},
    "filters after temperature": {"top_p": 0.7, "min_p": 0.15, "temperature": 2.5},
    "cold": {"top_p": 0.95, "typical_p": 0.9, "temperature": 0.6},
    "top-k before top-p": {"top_k": 3, "top_p": 0.75},
    "top-p before min-p": {"top_k": 12, "top_p": 0.8, "min_p": 0.25, "temperature": 1.7},
    "top-p before typical": {"top_p": 0.6, "typical_p": 0.6, "temperature": 2.0},
    "min-p before typical": {"min_p": 0.05, "typical_p": 0.5},
    "bias before repetition": {"repetition_penalty": 1.8, "logit_bias": {1: 3.0, 9: -4.0, 20: 2.0}},
    "repetition before presence": {
        "repetition_penalty": 1.7,
        "presence_penalty": 1.5,
        "frequency_penalty": 0.7,
    },
    "all": {
        "temperature": 1.3,
        "top_k": 25,
        "top_p": 0.92,
        "min_p": 0.03,
        "typical_p": 0.9,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.3,
        "logit_bias": {1: 2.0, 12: 3.0, 30: -5.0},
    },
}
REPLY = (12, 9, 12, 12, 20)
MASK = torch.arange(VOCAB) != 7


def chain(logits, options, prompt, reply, allowed):
    """Probabilities by transformers' processors and the OpenAI formula, in the order `sampler` documents."""
    row = logits[None].clone()
    for token_id, bias in options.logit_bias.items():
        row[0, token_id] += bias
    ids = torch.tensor([[*prompt, *reply]])
    row = RepetitionPenaltyLogitsProcessor(options.repetition_penalty)(ids, row)
    for token_id in set(reply):
        count = reply.count(token_id)
        row[0, token_id] -= options.presence_penalty + count * options.frequency_penalty
    row = row.masked_fill(~allowed, -torch.inf)
    processors = [TopKLogitsWarper(options.top_k)] if options.top_k else []
    processors.append(TemperatureLogitsWarper(options.temperature))
    processors += [TopPLogitsWarper(options.top_p)] if options.top_p < 1 else []
    processors += [MinPLogitsWarper(options.min_p)] if options.min_p else []
    processors += [TypicalLogitsWarper(options.typical_p)] if options.typical_p < 1 else []
    for processor in processors:
        row = processor(ids, row)
    return row[0].softmax(-1)


class Scripted:
    """Random numbers that come as told."""

    def __init__(self, seed):
        self.next = 0.0

    def random(self):
        return self.next


def measure(sampler, logits, allowed):
    """The sampler's own probabilities: the share of evenly spaced random numbers that give each token."""
    shares = torch.zeros(VOCAB)
    for step in range(GRID):
        one = copy.deepcopy(sampler)  # a draw is remembered, and must not change the next
        one._random.next = (step + 0.5) / GRID
        shares[one.sample(logits, allowed).token_id] += 1 / GRID
    return shares


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_is_the_written_one(name, monkeypatch):
    """Kept set and probabilities equal transformers' processors chained in the documented order."""
    monkeypatch.setattr("llm_local.sampling.sampler.random", SimpleNamespace(Random=Scripted))
    options = GenerationOptions(**ORDERS[name])
    logits = random_logits(5)
    sampler = Sampler(options, PROMPT, VOCAB)
    for token_id in REPLY:
        sampler.sample(logits, only(token_id))
    expected = chain(logits, options, PROMPT, REPLY, MASK)
    shares = measure(sampler, logits, MASK)
    assert set(shares.nonzero().flatten().tolist()) <= set(expected.nonzero().flatten().tolist())
    # an interval of length p holds p * GRID of the points, give or take one
    assert float((shares - expected).abs().max()) <= 1 / GRID + 1e-5


def test_prompt_counts_for_repetition_only():
    """A token of the prompt is penalized as a repetition, but is neither present nor frequent in the reply."""
    logits = torch.tensor([3.0, 2.9, 0.0])
    assert draw(sampler_for((0,), 3, temperature=0.0, repetition_penalty=2.0), logits, 1) == [1]
    penalties = {"presence_penalty": 2.0, "frequency_penalty": 2.0}
    assert draw(sampler_for((0, 0, 0), 3, temperature=0.0, **penalties), logits, 1) == [0]


def test_the_reply_counts_for_every_penalty():
    """What was just sampled is penalized at the next step, and more each time for frequency alone."""
    logits = torch.tensor([3.0, 2.9, 0.0])
    for name, value in (
        ("repetition_penalty", 2.0),
        ("presence_penalty", 1.0),
        ("frequency_penalty", 1.0),
    ):
        assert draw(sampler_for((), 3, temperature=0.0, **{name: value}), logits, 2) == [0, 1], name
    spread = torch.tensor([3.0, 1.1, 0.0])
    assert draw(sampler_for((), 3, temperature=0.0, presence_penalty=1.0), spread, 4) == [0, 0, 0, 0]
    assert draw(sampler_for((), 3, temperature=0.0, frequency_penalty=1.0), spread, 4) == [0, 0, 1, 0]


# --- the draw ---------------------------------------------------------------------------------------------------


def p_value(counts, probabilities):
    """Of Pearson's chi-square; cells that should hold less than five are taken together."""
    expected = probabilities.double() * counts.sum()
    small = expected < 5
    expected = torch.cat([expected[~small], expected[small].sum()[None]])
    observed = torch.cat([counts[~small], counts[small].sum()[None]]).double()
    observed, expected = observed[expected > 0], expected[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum()
    freedom = torch.tensor(len(expected) - 1.0, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom / 2, statistic / 2))


DRAWS = 6000
FILTERS = {
    "plain": {},
    "hot": {"temperature": 1.8},
    "filtered": {"temperature": 1.2, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
    "typical": {"typical_p": 0.7},
}


@pytest.mark.parametrize("name", FILTERS)
def test_frequencies_match_the_distribution(name):
    """Chi-square over 6,000 draws of one sequence. The seed is fixed; over seeds it would raise a false alarm
    once in 100,000 times per case."""
    options = GenerationOptions(seed=101, **FILTERS[name])
    logits = random_logits(8)
    tokens = draw(Sampler(options, (), VOCAB), logits, DRAWS)
    counts = torch.bincount(torch.tensor(tokens), minlength=VOCAB)
    expected = chain(logits, options, (0,), (), torch.ones(VOCAB, dtype=torch.bool))
    assert not counts[expected == 0].any()
    assert p_value(counts, expected) > 1e-5


def test_first_tokens_over_neighboring_seeds_match_the_distribution():
    """Seeds 0, 1, 2, ... give independent first tokens: chi-square over 6,000 seeds, false alarm 1e-5."""
    logits = random_logits(8)
    tokens = [sampler_for(seed=seed).sample(logits).token_id for seed in range(DRAWS)]
    counts = torch.bincount(torch.tensor(tokens), minlength=VOCAB)
    assert p_value(counts, logits.softmax(-1)) > 1e-5
    # and of neighbors: how often two following seeds agree
    agree = sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))
    expected = float((logits.softmax(-1) ** 2).sum())
    assert p_value(torch.tensor([agree, DRAWS - 1 - agree]), torch.tensor([expected, 1 - expected])) > 1e-5


def test_the_test_can_tell():
    """The chi-square above does see a distribution that is off by a tenth in temperature."""
    logits = random_logits(8)
    counts = torch.bincount(torch.tensor(draw(sampler_for(seed=101), logits, DRAWS)), minlength=VOCAB)
    assert p_value(counts, (logits / 1.1).softmax(-1)) < 1e-5


def test_the_ends_of_the_random_numbers_give_possible_tokens(monkeypatch):
    """Neither the smallest nor the largest random number reaches a candidate that was masked or filtered out."""
    monkeypatch.setattr("llm_local.sampling.sampler.random", SimpleNamespace(Random=Scripted))
    for seed in range(50):
        logits = random_logits(seed).masked_fill(torch.arange(VOCAB) % 2 == 0, -torch.inf)
        sampler = sampler_for()
        for sampler._random.next in (0.0, 2**-53, 1 - 2**-53):
            assert sampler.sample(logits).token_id % 2 == 1
    # typical-p may drop the first candidate, too
    logits = torch.cat([torch.tensor([0.3]), torch.full((VOCAB - 1,), 0.7 / (VOCAB - 1))]).log()
    sampler = sampler_for(typical_p=0.2)
    for sampler._random.next in (0.0, 2**-53, 1 - 2**-53):
        assert sampler.sample(logits).token_id != 0


# --- whose randomness -------------------------------------------------------------------------------------------


def test_same_seed_same_tokens_other_seed_other_tokens():
    """All 64 bits of the seed count, the sign too; no seed is a fresh one each time."""
    flat = torch.zeros(1000)
    seeds = [0, 1, -1, 2, 2**31, 2**32, 2**32 + 1, 2**63 - 1, -(2**63)]
    runs = {seed: draw(sampler_for(vocab=1000, seed=seed), flat, 8) for seed in seeds}
    assert all(draw(sampler_for(vocab=1000, seed=seed), flat, 8) == tokens for seed, tokens in runs.items())
    fresh = [draw(sampler_for(vocab=1000), flat, 8) for _ in range(4)]
    assert len({tuple(tokens) for tokens in [*runs.values(), *fresh]}) == len(seeds) + 4


def test_no_one_else_touches_a_sequence_s_randomness():
    """Global random states, and samplers at work in between, change nothing; and we leave theirs alone."""
    logits = random_logits(9)
    alone = draw(sampler_for(seed=5), logits, 50)

    torch.manual_seed(5)
    expected_global = torch.rand(3)
    torch.manual_seed(5)
    sampler, others = sampler_for(seed=5), [sampler_for(seed=5), sampler_for(seed=6, top_k=3)]
    tokens = []
    for _ in range(50):
        for other in others:
            other.sample(logits)
        tokens += draw(sampler, logits, 1)
    assert torch.equal(torch.rand(3), expected_global)

    for step in range(50):
        torch.manual_seed(step)
        torch.rand(step)
        tokens[step] = (tokens[step], others[0].sample(logits).token_id)[0]
    assert tokens == alone


@pytest.mark.parametrize("name", [*ORDERS, "top-k 1", "logprobs"])
def test_one_draw_per_token_whatever_the_options(name, monkeypatch):
    """Every token takes one random number, also when a mask or a filter leaves it no choice."""
    calls = []

    class Counting(Random):
        def random(self):
            calls.append(super().random())
            return calls[-1]

    monkeypatch.setattr("llm_local.sampling.sampler.random", SimpleNamespace(Random=Counting))
    more = {"top-k 1": {"top_k": 1}, "logprobs": {"logprobs": True, "top_logprobs": 3}}
    sampler = sampler_for(PROMPT, seed=5, **(ORDERS | more)[name])
    for step in range(30):
        sampler.sample(random_logits(step), only(step) if step % 3 == 0 else None)
        assert len(calls) == step + 1


# --- greedy, masks, damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 6.0], ids=["flat", "peaked"])
@pytest.mark.parametrize(
    "options",
    [{}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_p": 0.95, "min_p": 0.01}, {"top_p": 0.8, "typical_p": 0.9}],
    ids=str,
)
def test_looking_at_the_most_likely_first_changes_nothing(options, scale, monkeypatch):
    """The short way draws what sorting the whole vocabulary draws, and where most weight lies it is taken."""
    short_ways = []
    choose = Sampler._choose

    def watched(self, logits, num_listed, number):
        found = choose(self, logits, num_listed, number)
        if num_listed == LIKELY:
            short_ways.append(found != UNDECIDED)
        return found

    rows = [random_logits(seed, vocab=20 * LIKELY, scale=scale) for seed in range(20)]
    monkeypatch.setattr(Sampler, "_choose", watched)
    found = [draw(sampler_for(seed=n, **options), row, 2) for n, row in enumerate(rows)]
    monkeypatch.setattr(sampler_module, "LIKELY", 1 << 30)
    assert found == [draw(sampler_for(seed=n, **options), row, 2) for n, row in enumerate(rows)]
    assert len(short_ways) == 40
    assert any(short_ways) if scale > 1 else not all(short_ways)


@pytest.mark.parametrize("ties", [[0, 39], [39, 12, 25], list(range(VOCAB))])
def test_greedy_takes_the_lowest_id_on_a_tie(ties):
    """Temperature 0 is the most likely token, of equals the lowest id; top-k 1 is the same choice."""
    logits = torch.zeros(VOCAB)
    logits[ties] = 4.0
    assert draw(sampler_for(temperature=0.0, seed=1), logits, 3) == [min(ties)] * 3
    assert draw(sampler_for(temperature=1.0, top_k=1), logits, 3) == [min(ties)] * 3


def test_greedy_ignores_the_filters_but_not_bias_and_penalties():
    """At temperature 0 nothing is drawn, but steps 1 to 4 hold."""
    logits = torch.tensor([3.0, 2.0, 1.0])
    filters = {"top_p": 0.1, "min_p": 1.0, "typical_p": 0.1, "top_k": 2}
    assert draw(sampler_for(vocab=3, temperature=0.0, **filters), logits, 2) == [0, 0]
    assert draw(sampler_for(vocab=3, temperature=0.0, logit_bias={2: 5.0}), logits, 1) == [2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "damage",
    [
        {3: math.nan},
        {0: math.nan, 5: math.inf},
        {3: math.inf},
        dict.fromkeys(range(VOCAB), -math.inf),
        dict.fromkeys(range(VOCAB), math.nan),
    ],
)
def test_damaged_logits_are_an_error(damage, temperature):
    """NaN, plus infinity, or nothing finite: no token is made up from that, whatever mask and bias would hide."""
    logits = random_logits(1)
    for token_id, value in damage.items():
        logits[token_id] = value
    for options in ({}, {"logit_bias": {3: -100.0}, "top_k": 5, "repetition_penalty": 1.3, "logprobs": True}):
        with pytest.raises(NumericalError):
            sampler_for((3,), temperature=temperature, seed=1, **options).sample(logits, only(1, 2))


def test_minus_infinity_is_a_legal_never():
    """Impossible tokens among finite ones are no damage, and are never drawn."""
    logits = random_logits(1).masked_fill(torch.arange(VOCAB) > 2, -torch.inf)
    options = {"repetition_penalty": 1.3, "presence_penalty": 0.1, "typical_p": 0.95, "top_p": 0.999}
    for extra in ({}, options):
        assert set(draw(sampler_for((30, 1), seed=2, **extra), logits, 200)) <= {0, 1, 2}


@pytest.mark.parametrize("as_tensor", [False, True])
def test_only_allowed_tokens_are_ever_sampled(as_tensor):
    """The mask comes after bias and penalties, so not even +100 brings a forbidden token back."""
    logits = random_logits(3)
    allowed = only(4, 11, 23)
    allowed = torch.tensor(allowed) if as_tensor else allowed
    forbidden = {token_id: 100.0 for token_id in range(VOCAB) if token_id not in (4, 11, 23)}
    for options in (
        {},
        {"temperature": 0.0},
        {"top_k": 30, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.9},
        {"temperature": 10.0},
    ):
        sampler = sampler_for((4, 11, 23), seed=4, logit_bias=forbidden, repetition_penalty=3.0, **options)
        tokens = draw(sampler, logits, 200, allowed)
        assert set(tokens) <= {4, 11, 23}
    assert set(draw(sampler_for(seed=4), logits, 300, allowed)) == {4, 11, 23}, "all allowed ones do come"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_mask_without_a_way_out_is_an_error(temperature):
    """Nothing allowed, or only what the model gives no chance at all: an error, not a forbidden token."""
    logits = random_logits(3)
    logits[4] = -math.inf
    for allowed in (only(), only(4)):
        with pytest.raises(EngineError, match="constraint"):
            sampler_for(temperature=temperature, seed=1).sample(logits, allowed)


def test_every_allowed_option_gives_an_allowed_token():
    """The ends of every bound, alone and together, on peaked and on flat logits: always a possible token."""
    names = ["temperature", "top_k", "top_p", "min_p", "typical_p"]
    names += ["repetition_penalty", "presence_penalty", "frequency_penalty"]
    ends = {
        name: ([5e-324, 1e-40] if BOUNDS[name].open_low else [BOUNDS[name].low]) + [BOUNDS[name].high]
        for name in names
    }
    ends["temperature"] += [5e-324, 1e-40]
    cases = [{name: value} for name in names for value in ends[name]]
    cases += [{name: values[index % len(values)] for name, values in ends.items()} for index in range(4)]
    for case in cases:
        for scale in (0.0, 5.0, 1e30):
            logits = random_logits(6, scale=scale).masked_fill(torch.arange(VOCAB) % 2 == 0, -torch.inf)
            tokens = draw(sampler_for(tuple(range(0, VOCAB, 3)), seed=1, **case), logits, 5)
            assert all(token_id % 2 for token_id in tokens), (case, scale)


@pytest.mark.parametrize("temperature", [1e-30, 1e-38, 1e-42, 5e-324])
def test_a_tiny_temperature_is_greedy(temperature):
    """The limit of temperature towards 0 is the most likely token, never the least likely one."""
    logits = random_logits(3)
    assert draw(sampler_for(temperature=temperature, seed=1), logits, 20) == [int(logits.argmax())] * 20
