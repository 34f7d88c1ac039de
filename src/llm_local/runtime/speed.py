"""Where the time of one request went: rates for programs, and one plain sentence for people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from llm_local.events import Timings, Usage

__all__ = ["SpeedBreakdown", "decode_rate", "prefill_rate", "speed_breakdown"]

# A stage with this share of the time is what took it; with less, the two longest are told.
MOST: Final = 0.6
# Faster than anybody notices.
INSTANT_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class SpeedBreakdown:
    """Seconds of each stage, rates in tokens/s (None: too little to measure), and what took the time in a sentence.

    `other_s` is what is left of `total_s`: making the request ready, text, the network.
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

    def to_object(self) -> dict[str, Any]:
        """For programs: one JSON-ready object, seconds to the microsecond."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(self).items()
        }


def prefill_rate(usage: Usage, timings: Timings) -> float | None:
    """Prompt tokens per second that were really computed, cached ones left out."""
    return _per_second(usage.prompt_tokens - usage.cached_tokens, timings.prefill_s)


def decode_rate(usage: Usage, timings: Timings, num_replies: int = 1) -> float | None:
    """Sampled tokens per second. The first one of a reply belongs to the prefill, so decoding made one fewer."""
    return _per_second(usage.completion_tokens - num_replies, timings.decode_s)


def speed_breakdown(usage: Usage, timings: Timings, total_s: float | None = None) -> SpeedBreakdown:
    """The breakdown of one request. `total_s`: from its arrival to its end, where somebody measured that."""
    stages_s = timings.queued_s + timings.load_s + timings.prefill_s + timings.decode_s
    total_s = stages_s if total_s is None else max(total_s, stages_s)
    return SpeedBreakdown(
        queued_s=timings.queued_s,
        load_s=timings.load_s,
        prefill_s=timings.prefill_s,
        decode_s=timings.decode_s,
        other_s=total_s - stages_s,
        total_s=total_s,
        prefill_tokens_per_s=prefill_rate(usage, timings),
        decode_tokens_per_s=decode_rate(usage, timings),
        sentence=_sentence(usage, timings, total_s),
    )


def _sentence(usage: Usage, timings: Timings, total_s: float) -> str:
    if usage.replayed_tokens:
        return (
            f"Nothing was computed: an equal request was answered before, and its {_tokens(usage)} were kept."
        )
    if total_s < INSTANT_S:
        return f"The whole request took {_seconds(total_s)}."
    stages = _stages(usage, timings, total_s)
    (first_s, first), (second_s, second) = sorted(stages, key=lambda stage: stage[0], reverse=True)[:2]
    if first_s >= MOST * total_s:
        return f"Most of the {_seconds(total_s)} went into {first}: {_seconds(first_s)}{_more(usage)}."
    return (
        f"Of the {_seconds(total_s)}, {_seconds(first_s)} went into {first} and {_seconds(second_s)} into {second}"
        f"{_more(usage)}."
    )


def _stages(usage: Usage, timings: Timings, total_s: float) -> list[tuple[float, str]]:
    """Each stage's seconds, and the words for it."""
    computed = usage.prompt_tokens - usage.cached_tokens
    reading = f"reading {computed:,} {'token' if computed == 1 else 'tokens'} of prompt"
    writing = f"writing {_tokens(usage)}"
    known_s = timings.queued_s + timings.load_s + timings.prefill_s + timings.decode_s
    return [
        (timings.queued_s, "waiting for other requests"),
        (timings.load_s, "loading the model, which the next request will find in memory"),
        (timings.prefill_s, reading + _rate(prefill_rate(usage, timings))),
        (timings.decode_s, writing + _rate(decode_rate(usage, timings))),
        (total_s - known_s, "making the request ready and sending the answer"),
    ]


def _more(usage: Usage) -> str:
    """What was saved, where that is most of the prompt."""
    if usage.cached_tokens * 2 <= usage.prompt_tokens or not usage.cached_tokens:
        return ""
    return (
        f"; {usage.cached_tokens:,} of {usage.prompt_tokens:,} tokens of prompt were known and not read again"
    )


def _tokens(usage: Usage) -> str:
    return f"{usage.completion_tokens:,} {'token' if usage.completion_tokens == 1 else 'tokens'}"


def _rate(per_second: float | None) -> str:
    return "" if per_second is None else f" at {per_second:,.1f} tokens/s"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds * 1000:.0f} ms"


def _per_second(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if count > 0 and seconds > 0 else None
