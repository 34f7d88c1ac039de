"""How often one caller may ask: a moving window for each key, or for each address where nobody needs a key."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from limits import RateLimitItem, parse

from llm_local.errors import Busy

__all__ = ["RateLimited", "RateLimits", "RateState", "rate_headers"]


@dataclass(frozen=True, slots=True)
class RateState:
    """What a caller has left: `remaining` of `limit` requests.

    One more is free again after `next_s` seconds, and all of them after `reset_s`; 0 where they are already.
    """

    limit: int
    remaining: int
    next_s: int
    reset_s: int


class RateLimits:
    """A limit like "60/minute", or None for none, that holds for every caller alone.

    Times are those of `clock`, which no change of the date moves; the windows of the library `limits` are not.
    """

    def __init__(self, limit: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._item: RateLimitItem | None = None if limit is None else parse(limit)
        self._clock = clock
        self._windows: OrderedDict[str, deque[float]] = OrderedDict()  # who asked last comes last

    def hit(self, caller: str) -> RateState | None:
        """Count a request; None where there is no limit.

        Raises:
            RateLimited: it is one too many. It does not count.
        """
        if self._item is None:
            return None
        now, period_s, limit = self._clock(), self._item.get_expiry(), self._item.amount
        self._forget(now - period_s)
        window = self._windows.setdefault(caller, deque())
        while window and window[0] <= now - period_s:
            window.popleft()
        allowed = len(window) < limit
        if allowed:
            window.append(now)
            self._windows.move_to_end(caller)
        full = len(window) == limit
        next_s = max(1, ceil(window[0] + period_s - now)) if full else 0
        state = RateState(limit, limit - len(window), next_s, max(1, ceil(window[-1] + period_s - now)))
        if not allowed:
            raise RateLimited(state, str(self._item))
        return state

    def _forget(self, before: float) -> None:
        """Drop the windows of those who have asked nothing since, so that their number is bounded."""
        while self._windows:
            caller, window = next(iter(self._windows.items()))
            if window and window[-1] > before:
                return
            del self._windows[caller]


class RateLimited(Busy):
    """The caller has asked too often."""

    def __init__(self, state: RateState, limit: str) -> None:
        super().__init__(
            f"This caller is limited to {limit}.",
            f"Try again in {state.next_s} seconds.",
            retry_after_s=state.next_s,
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
