"""A reply as it is kept: the events that a reader gets, as JSON text; and how a kept one is told again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llm_local.events import (
    Channel,
    Delta,
    Event,
    Finish,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
)
from llm_local.messages import ToolCall
from llm_local.options import GenerationOptions

if TYPE_CHECKING:
    from llm_local.generation.requests import PreparedRequest

__all__ = ["CacheStatistics", "cache_key", "from_payload", "is_deterministic", "to_payload"]

# A part of each key: what another version of this program wrote is never read.
FORMAT: Final = 2
# Of a prepared request, what says how it came to be, and decides nothing of the reply.
ONLY_TELL: Final = ("prompt_text", "notices", "trimmed")
# Reasons of a reply that would end the same way again.
WHOLE: Final = ("stop", "length", "tool_calls")


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Of this process. `entries`, `num_bytes`, `max_bytes`: None where the cache is shared and nobody here knows."""

    kind: str
    hits: int
    misses: int
    entries: int | None = None
    num_bytes: int | None = None
    max_bytes: int | None = None


def is_deterministic(options: GenerationOptions) -> bool:
    """True when the options as the caller gave them, before a seed is drawn, allow one reply only."""
    return options.greedy or options.seed is not None


def cache_key(owner: str, model_digest: str, prepared: PreparedRequest) -> str:
    """The name under which a reply is kept: a digest of everything that decides it, and of whose it is.

    `model_digest` stands for all that decides what the model computes: weights and revision, quantization, dtype,
    device, adapter, kernels, context length.
    """
    parts = {
        "format": FORMAT,
        "owner": owner,
        "model": model_digest,
        # all the rest of it, so that a field that comes to it one day is not forgotten here
        "request": {
            field.name: getattr(prepared, field.name)
            for field in dataclasses.fields(prepared)
            if field.name not in ("prompt_ids", *ONLY_TELL)
        },
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode())
    digest.update(array("q", prepared.prompt_ids).tobytes())
    return digest.hexdigest()


def to_payload(events: Iterable[Event]) -> bytes | None:
    """The JSON text of a whole reply; None of one that was cut off, and need not end the same way again.

    What only tells how this run went (progress, what was trimmed) is left out.
    """
    kept: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, Finish):
            if event.reason not in WHOLE:
                return None
            usage = dataclasses.asdict(event.usage)
            kept.append({"finish": event.reason, "usage": usage, "stop": event.stop})
            return json.dumps(kept, separators=(",", ":")).encode()
        if isinstance(event, Delta):
            logprobs = [[one.token_id, one.logprob, one.top] for one in event.logprobs]
            kept.append({event.channel: event.text, "ids": event.token_ids, "logprobs": logprobs})
        elif isinstance(event, ToolCallDelta):
            kept.append({"call_delta": dataclasses.asdict(event)})
        elif isinstance(event, ToolCallEvent):
            kept.append({"call": {**dataclasses.asdict(event.call)}})
    return None


def from_payload(payload: bytes) -> tuple[Event, ...] | None:
    """The events of a kept reply, its `Finish` saying that nothing was computed; None of what is no such text."""
    try:
        events = tuple(_event(one) for one in json.loads(payload))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return events if events and isinstance(events[-1], Finish) else None


def _event(kept: Mapping[str, Any]) -> Event:
    if "finish" in kept:
        usage = Usage(**kept["usage"])
        replay = Usage(
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            replayed_tokens=usage.completion_tokens,
        )
        return Finish(kept["finish"], replay, Timings(), kept["stop"])
    if "call_delta" in kept:
        return ToolCallDelta(**kept["call_delta"])
    if "call" in kept:
        return ToolCallEvent(ToolCall(**kept["call"]))
    channel: Channel = "content" if "content" in kept else "reasoning"
    logprobs = tuple(
        TokenLogprob(token_id, logprob, tuple((other, its) for other, its in top))
        for token_id, logprob, top in kept["logprobs"]
    )
    return Delta(channel, kept[channel], tuple(kept["ids"]), logprobs)


def _plain(value: object) -> Any:
    """Values and mappings of every kind, as JSON knows them."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be part of a key.")
