"""How often one caller may ask: a moving window for each key, or for each address where nobody needs a key."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from llm_local.errors import Busy

__all__ = ["RateLimits", "RateState", "rate_headers"]


@dataclass(frozen=True, slots=True)
class RateState:
    """What a caller has left: `remaining` of `limit` requests, and all of them again after `reset_s` seconds."""

    limit: int
    remaining: int
    reset_s: int


class RateLimits:
    """A limit like "60/minute", or None for none, that holds for every caller alone."""

    def __init__(self, limit: str | None) -> None:
        self._item: RateLimitItem | None = None if limit is None else parse(limit)
        self._windows = MovingWindowRateLimiter(MemoryStorage())

    async def hit(self, caller: str) -> RateState | None:
        """Count a request; None where there is no limit.

        Raises:
            RateLimited: it is one too many. It does not count.
        """
        if self._item is None:
            return None
        allowed = await self._windows.hit(self._item, caller)
        stats = await self._windows.get_window_stats(self._item, caller)
        reset_s = max(1, ceil(stats.reset_time - time.time()))
        state = RateState(self._item.amount, max(0, stats.remaining), reset_s)
        if not allowed:
            raise RateLimited(state, str(self._item))
        return state


class RateLimited(Busy):
    """The caller has asked too often."""

    def __init__(self, state: RateState, limit: str) -> None:
        super().__init__(
            f"This caller is limited to {limit}.",
            f"Try again in {state.reset_s} seconds.",
            retry_after_s=state.reset_s,
            kind="rate_limit_exceeded",
        )
        self.headers = rate_headers(state)


def rate_headers(state: RateState) -> dict[str, str]:
    """The headers of every answer to a caller with a limit, named as OpenAI names them."""
    return {
        "x-ratelimit-limit-requests": str(state.limit),
        "x-ratelimit-remaining-requests": str(state.remaining),
        "x-ratelimit-reset-requests": f"{state.reset_s}s",
    }
