"""From the moments at which tokens came to figures. Pure arithmetic over seconds of one clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

__all__ = [
    "DecodeFigures",
    "TokenTimes",
    "decode_figures",
    "gaps",
    "median_of",
    "memory_share",
    "percentile",
    "ratio",
    "spread_of",
]


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """When each sequence was submitted, and when each of its tokens came."""

    submitted_s: tuple[float, ...]
    tokens_s: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class DecodeFigures:
    """How fast sequences went. None: there was nothing to measure it by.

    - `decode_tokens_per_s`: of all sequences together, from when the last one has its first token until the first
      one has its last, so that no prompt is read meanwhile.
    - `prefill_tokens_per_s`: all prompts, from the first submission until the last sequence has its first token.
    - `ttft_*`: from submission to a sequence's first token; `itl_*`: between two tokens of a sequence. Seconds.
    """

    decode_tokens_per_s: float | None
    prefill_tokens_per_s: float | None
    ttft_p50_s: float
    ttft_p95_s: float
    itl_p50_s: float | None
    itl_p95_s: float | None


def decode_figures(times: TokenTimes, prompt_tokens: int) -> DecodeFigures:
    """The figures of one run; `prompt_tokens` of all prompts together. Every sequence has at least one token."""
    first = [tokens[0] for tokens in times.tokens_s]
    start, end = max(first), min(tokens[-1] for tokens in times.tokens_s)
    num_decoded = sum(start < moment <= end for tokens in times.tokens_s for moment in tokens)
    ttft = [moment - submitted for moment, submitted in zip(first, times.submitted_s, strict=True)]
    between = [gap for tokens in times.tokens_s for gap in gaps(tokens)]
    return DecodeFigures(
        decode_tokens_per_s=ratio(num_decoded, end - start) if end > start else None,
        prefill_tokens_per_s=ratio(prompt_tokens, start - min(times.submitted_s)),
        ttft_p50_s=percentile(ttft, 50),
        ttft_p95_s=percentile(ttft, 95),
        itl_p50_s=percentile(between, 50) if between else None,
        itl_p95_s=percentile(between, 95) if between else None,
    )


def gaps(moments: Sequence[float]) -> list[float]:
    """The seconds between each moment and the next."""
    return [later - earlier for earlier, later in pairwise(moments)]


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that `percent` of all lie below, between two of them by their distance. At least one value."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place % 1)


def median_of(values: Iterable[float | None]) -> float | None:
    """The median of those that were measured; None when none was."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def spread_of(values: Iterable[float | None]) -> float | None:
    """How far apart the lowest and the highest are, as a share of the median; None for fewer than two."""
    known = [value for value in values if value is not None]
    return (max(known) - min(known)) / median(known) if len(known) > 1 else None


def memory_share(bytes_per_step: float, steps_per_s: float, read_bytes_per_s: float) -> float:
    """How much of what memory can deliver was used (the roofline of decoding): 1 where nothing else took time."""
    return bytes_per_step * steps_per_s / read_bytes_per_s


def ratio(one: float | None, other: float | None) -> float | None:
    """`one` divided by `other`; None where that says nothing."""
    return one / other if one is not None and other else None
