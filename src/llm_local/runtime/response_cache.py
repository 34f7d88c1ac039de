"""Replies to requests that can only have one: kept, and told again event by event instead of computed again.

Only what is greedy or has an explicit seed is kept, under a key of owner, model, prompt ids and everything else that
decides the reply; so nobody ever gets what another owner asked for. Kept as JSON, never pickled.

Off unless the settings ask for it: a cache holds what people wrote for longer than answering them needs, and who
measures this program by asking twice would measure the cache.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol

from llm_local.config import Config
from llm_local.events import Event
from llm_local.runtime.kept_replies import (
    CacheStatistics,
    cache_key,
    from_payload,
    is_deterministic,
    to_payload,
)

__all__ = [
    "CacheStatistics",
    "MemoryResponseCache",
    "ResponseCache",
    "cache_key",
    "is_deterministic",
    "open_response_cache",
]

# What an entry takes beside its text: the key, and the bookkeeping of two objects in a dict.
OVERHEAD_BYTES: Final = 300


class ResponseCache(Protocol):
    """Where replies are kept. A cache that fails is one that has nothing: it never fails a request."""

    async def get(self, key: str) -> tuple[Event, ...] | None:
        """The events of a kept reply, whose `Finish` says that nothing was computed; None: there is none."""

    async def put(self, key: str, events: Iterable[Event]) -> None:
        """Keep a reply. One that was cut off, or is too large, is not kept, which is no error."""

    def statistics(self) -> CacheStatistics:
        """What it holds, and how often it helped."""

    async def aclose(self) -> None:
        """Let go of connections and memory."""


class MemoryResponseCache:
    """In this process: the least recently used go first when their size would exceed `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._payloads: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0
        self._hits = self._misses = 0

    async def get(self, key: str) -> tuple[Event, ...] | None:
        """The events of a kept reply, or None."""
        payload = self._payloads.get(key)
        if payload is None:
            self._misses += 1
            return None
        self._payloads.move_to_end(key)
        self._hits += 1
        # In a thread: a long reply with log-probabilities is some megabytes of JSON.
        return await asyncio.to_thread(from_payload, payload)

    async def put(self, key: str, events: Iterable[Event]) -> None:
        """Keep a whole reply."""
        payload = await asyncio.to_thread(to_payload, tuple(events))
        if payload is None or len(payload) + OVERHEAD_BYTES > self._max_bytes:
            return
        self._drop(key)
        self._payloads[key] = payload
        self._num_bytes += len(payload) + OVERHEAD_BYTES
        while self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._payloads)))

    def statistics(self) -> CacheStatistics:
        """What it holds, and how often it helped."""
        return CacheStatistics(
            "memory", self._hits, self._misses, len(self._payloads), self._num_bytes, self._max_bytes
        )

    async def aclose(self) -> None:
        """Forget everything."""
        self._payloads.clear()
        self._num_bytes = 0

    def _drop(self, key: str) -> None:
        payload = self._payloads.pop(key, None)
        if payload is not None:
            self._num_bytes -= len(payload) + OVERHEAD_BYTES


def open_response_cache(config: Config) -> ResponseCache | None:
    """The cache that the settings ask for: Redis, in memory, or none. Connects to nothing yet.

    Raises:
        ConfigError: Redis is asked for, and its package is missing, or a `.env` names one on another machine.
    """
    if config.response_cache_url is not None:
        # Late: most have no Redis.
        from llm_local.runtime.redis_cache import open_redis_cache

        return open_redis_cache(config)
    if config.response_cache_mb:
        return MemoryResponseCache(config.response_cache_mb << 20)
    return None
