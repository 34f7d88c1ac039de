"""When to try again: how often, how long to wait in between, and when to give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from llm_local.errors import HubUnavailable

__all__ = ["Retries", "TransientError"]

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_LONGEST_OBEYED_WAIT_S = 120.0


class TransientError(Exception):
    """A failure that may pass. `retry_after_s` is what the server asked for, or None."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Retries:
    """Counts the failures of one piece of work. `on_wait` is told, in words, why nothing happens for a while."""

    def __init__(
        self,
        tries: int = 5,
        *,
        sleep: Callable[[float], None] = time.sleep,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self._tries = tries
        self._sleep = sleep
        self._on_wait = on_wait
        self._failures = 0

    def progressed(self) -> None:
        """The work went on: only failures in a row count."""
        self._failures = 0

    def wait(self, error: TransientError) -> None:
        """Sleep before the next try.

        Raises:
            HubUnavailable: this was the last try, or the server asks for too much patience.
        """
        self._failures += 1
        asked = error.retry_after_s
        if self._failures >= self._tries or (asked is not None and asked > _LONGEST_OBEYED_WAIT_S):
            raise HubUnavailable(
                f"The model hub cannot be used now: {error.reason.rstrip('.')}.", _hint(asked)
            ) from error
        # Jitter keeps many machines that failed together from coming back together.
        backoff = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (self._failures - 1)) * random.uniform(0.75, 1.25)  # noqa: S311
        seconds = backoff if asked is None else max(asked, 0.0)
        if self._on_wait is not None:
            self._on_wait(f"{error.reason.rstrip('.')}; trying again in {seconds:.0f} s")
        self._sleep(seconds)


def _hint(asked: float | None) -> str:
    if asked:
        return f"It asks to be tried again in {asked:.0f} s; what was downloaded is kept."
    return "Try again later; what was downloaded is kept."
