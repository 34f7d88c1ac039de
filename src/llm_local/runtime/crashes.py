"""Models whose engine died: how long to wait before the next try, and when to try no more for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

from llm_local.errors import Busy

__all__ = ["CrashRecord"]

# So many crashes within so many seconds, and a model is left alone for a while.
MAX_CRASHES: Final = 3
WINDOW_S: Final = 60.0
QUARANTINE_S: Final = 300.0
# Before a restart, doubled with every crash in the window.
FIRST_DELAY_S: Final = 0.5


class CrashRecord:
    """Crashes by model, by a clock that never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._crashes: dict[Hashable, deque[float]] = {}
        self._quarantined: dict[Hashable, float] = {}

    def record(self, key: Hashable) -> None:
        """A model's engine died just now."""
        now = self._clock()
        recent = self._crashes.setdefault(key, deque(maxlen=MAX_CRASHES))
        recent.append(now)
        if len(recent) == MAX_CRASHES and now - recent[0] <= WINDOW_S:
            self._quarantined[key] = now + QUARANTINE_S
            recent.clear()

    def check(self, key: Hashable, name: str) -> None:
        """Raise Busy (kind `model_quarantined`) for a model that is left alone for now."""
        if not self.is_quarantined(key):
            return
        raise Busy(
            f"{name} is not used for now: its engine died {MAX_CRASHES} times within {WINDOW_S:.0f} seconds.",
            "Try again later, or load it explicitly, which tries at once; the log says why it died.",
            retry_after_s=self._quarantined[key] - self._clock(),
            kind="model_quarantined",
        )

    def is_quarantined(self, key: Hashable) -> bool:
        """True while the model is left alone."""
        ends = self._quarantined.get(key)
        if ends is not None and ends <= self._clock():
            del self._quarantined[key]
            return False
        return ends is not None

    def delay_s(self, key: Hashable) -> float:
        """How long to wait before the model is loaded again."""
        now = self._clock()
        recent = [when for when in self._crashes.get(key, ()) if now - when <= WINDOW_S]
        if not recent:
            return 0.0
        return max(0.0, recent[-1] + FIRST_DELAY_S * 2 ** (len(recent) - 1) - now)

    def forgive(self, key: Hashable) -> None:
        """Forget what happened: somebody wants the model tried at once."""
        self._crashes.pop(key, None)
        self._quarantined.pop(key, None)
