"""Where the time of one request went: rates for programs, and one plain sentence for people."""

from __future__ import annotations

from dataclasses import dataclass

from llm_local.events import Timings, Usage

__all__ = ["SpeedBreakdown", "decode_rate", "prefill_rate", "speed_breakdown"]


@dataclass(frozen=True, slots=True)
class SpeedBreakdown:
    """Seconds of each stage, rates in tokens/s (None: too little to measure), and what took the time in a sentence.

    `other_s` is what is left of `total_s`: tokenizing, text, the network.
    """

    queued_s: float
    load_s: float
    prefill_s: float
    decode_s: float
    other_s: float
    total_s: float
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    sentence: str


def prefill_rate(usage: Usage, timings: Timings) -> float | None:
    """Prompt tokens per second that were really computed, cached ones left out."""
    return _per_second(usage.prompt_tokens - usage.cached_tokens, timings.prefill_s)


def decode_rate(usage: Usage, timings: Timings, num_replies: int = 1) -> float | None:
    """Sampled tokens per second. The first one of a reply belongs to the prefill, so decoding made one fewer."""
    return _per_second(usage.completion_tokens - num_replies, timings.decode_s)


def speed_breakdown(usage: Usage, timings: Timings, total_s: float | None = None) -> SpeedBreakdown:
    """The breakdown of one request. `total_s`: from its arrival to its end, where somebody measured that."""
    raise NotImplementedError


def _per_second(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if count > 0 and seconds > 0 else None
