"""The arithmetic of a benchmark, on numbers that can be worked out by hand."""

from __future__ import annotations

import pytest

from llm_local.bench.figures import (
    TokenTimes,
    decode_figures,
    gaps,
    median_of,
    memory_share,
    percentile,
    ratio,
    spread_of,
)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 95, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 2.0, 3.0], 50, 2.5),
        (range(101), 95, 95.0),
        ([1.0, 2.0], 0, 1.0),
        ([1.0, 2.0], 100, 2.0),
        ([0.0, 10.0], 95, 9.5),
    ],
)
def test_percentiles(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == pytest.approx(expected)


def test_medians_and_ratios_skip_what_was_not_measured() -> None:
    assert median_of([3.0, None, 1.0]) == 2.0
    assert median_of([None]) is None
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(3.0, 0.0) is ratio(None, 1.0) is ratio(1.0, None) is None


def test_spread_is_a_share_of_the_median() -> None:
    assert spread_of([8.0, None, 10.0, 11.0]) == pytest.approx(0.3)
    assert spread_of([8.0, None]) is spread_of([]) is None


def test_the_memory_share_is_what_was_read_against_what_can_be() -> None:
    # 100 bytes a step, 8 steps a second, of 1,000 bytes a second
    assert memory_share(100, 8.0, 1000.0) == pytest.approx(0.8)


def test_each_sequence_counts_from_its_own_arrival() -> None:
    figures = decode_figures(TokenTimes((0.0, 4.0), ((1.0, 6.0), (5.0, 7.0))), prompt_tokens=10)
    assert figures.ttft_p95_s == 1.0
    assert figures.prefill_tokens_per_s == 2.0


def test_gaps_lie_between_neighbors() -> None:
    assert gaps([1.0, 1.5, 4.0]) == [0.5, 2.5]
    assert gaps([1.0]) == []


def test_decoding_is_measured_only_while_no_prompt_is_read() -> None:
    # the first sequence has its first token while the second's prompt is still being read
    times = TokenTimes((10.0, 10.0), ((12.0, 14.0, 15.0, 16.0), (14.0, 15.0, 16.0, 17.0)))
    figures = decode_figures(times, prompt_tokens=100)
    # from 14, when both have one, to 16, when the first is done: two tokens each in two seconds
    assert figures.decode_tokens_per_s == 2.0
    assert figures.prefill_tokens_per_s == 25.0
    assert (figures.ttft_p50_s, figures.ttft_p95_s) == pytest.approx((3.0, 3.9))
    assert (figures.itl_p50_s, figures.itl_p95_s) == pytest.approx((1.0, 1.75))


def test_one_token_each_says_nothing_about_decoding() -> None:
    figures = decode_figures(TokenTimes((0.0, 0.0), ((1.0,), (2.0,))), prompt_tokens=6)
    assert (figures.decode_tokens_per_s, figures.itl_p50_s, figures.itl_p95_s) == (None, None, None)
    assert figures.prefill_tokens_per_s == 3.0
