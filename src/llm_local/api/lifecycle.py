"""Whether this server takes requests, and when those that run have to end: what SIGTERM changes."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from llm_local.errors import Busy

__all__ = ["Lifecycle", "shutting_down"]

_RETRY_S: Final = 5.0  # long enough for another process to take the port over


class Lifecycle:
    """Serving, then draining (nothing new is taken), then over (what still runs is told so and ends).

    `begin_drain` may be called from a signal handler; everything else belongs to the event loop.
    """

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self._over = asyncio.Event()
        self._deadline: float | None = None

    @property
    def draining(self) -> bool:
        """True from the first signal on."""
        return self._deadline is not None

    @property
    def over(self) -> asyncio.Event:
        """Set when what still runs has to end."""
        return self._over

    @property
    def left_s(self) -> float:
        """Seconds that running requests still have; the whole grace before it began."""
        return self.grace_s if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def begin_drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take nothing new, and end what runs after the grace. Harmless when repeated."""
        if self._deadline is None:
            self._deadline = time.monotonic() + self.grace_s
            loop.call_soon_threadsafe(loop.call_later, self.grace_s, self._over.set)


def shutting_down() -> Busy:
    """The error of a request that this server does not begin, or does not finish, any more."""
    return Busy(
        "The server is shutting down.",
        "Try again in a few seconds.",
        retry_after_s=_RETRY_S,
        kind="shutting_down",
    )
