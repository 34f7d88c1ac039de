"""Replies to requests that can only have one: kept, and replayed event by event instead of computed again.

Only what is greedy or has an explicit seed is kept, under a key of owner, model, prompt ids and everything else that
decides the reply; so nobody ever gets what another owner asked. Kept as JSON, never pickled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from llm_local.config import Config
from llm_local.events import Event
from llm_local.generation.requests import PreparedRequest
from llm_local.options import GenerationOptions

__all__ = [
    "CacheStatistics",
    "ResponseCache",
    "cache_key",
    "is_deterministic",
    "open_response_cache",
    "replayed",
]


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Of this process. `entries` and `num_bytes` are None where the cache is shared and they are not known."""

    kind: str
    hits: int
    misses: int
    entries: int | None
    num_bytes: int | None
    max_bytes: int | None


class ResponseCache(Protocol):
    """Where replies are kept. A cache that fails is one that has nothing: it never fails a request."""

    async def get(self, key: str) -> tuple[Event, ...] | None:
        """The events of a kept reply as `replayed` makes them, or None."""

    async def put(self, key: str, events: Iterable[Event]) -> None:
        """Keep a whole reply; one that was cancelled or is too large is not kept, which is no error."""

    def statistics(self) -> CacheStatistics:
        """What it holds, and how often it helped."""

    async def aclose(self) -> None:
        """Let go of connections and memory."""


def is_deterministic(options: GenerationOptions) -> bool:
    """True when the options as the caller gave them, before a seed is drawn, allow one reply only."""
    return options.greedy or options.seed is not None


def cache_key(owner: str, model_digest: str, prepared: PreparedRequest) -> str:
    """The name under which a reply is kept. `model_digest` stands for all that decides what the model computes:

    weights and revision, quantization, dtype, device, adapter, kernels, context length.
    """
    raise NotImplementedError


def replayed(events: Iterable[Event]) -> tuple[Event, ...]:
    """A reply as a hit tells it: the same deltas and calls, a `Finish` that says that nothing was computed."""
    raise NotImplementedError


def open_response_cache(config: Config) -> ResponseCache | None:
    """The cache that the settings ask for: none, in memory, or Redis.

    Raises:
        ConfigError: Redis is asked for, and its package is missing or its host is not allowed.
    """
    raise NotImplementedError
