"""How far a pull is, per file and in all: one line that updates on a terminal, percent lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from llm_local.store.pulling import FileProgress
from llm_local.terminal.sizes import format_bytes
from llm_local.terminal.streams import Messages

__all__ = ["PullProgress"]

_LIVE_EVERY_S: Final = 0.1
_PLAIN_EVERY_S: Final = 5.0
_RATE_OVER_S: Final = 8.0


class PullProgress:
    """A callable that takes every FileProgress of one pull and decides what is worth showing."""

    def __init__(self, messages: Messages, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._messages = messages
        self._clock = clock
        self._due_s = 0.0
        self._said_percent = -1
        # Seconds and bytes of the last moments: what an earlier run brought must not count as speed.
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, event: FileProgress) -> None:
        """Show it, at once or not at all."""
        now = self._clock()
        self._remember(now, event.total_done)
        if event.note:
            self._messages.note(f"{event.name}: {event.note}")
            return
        complete = event.total is not None and event.total_done >= event.total
        percent = _percent(event.total_done, event.total)
        if self._messages.live:
            if now >= self._due_s or complete:
                self._due_s = now + _LIVE_EVERY_S
                self._messages.status(self._line(event))
        elif percent != self._said_percent and (now >= self._due_s or complete):
            self._due_s, self._said_percent = now + _PLAIN_EVERY_S, percent
            self._messages.note(self._line(event))

    def close(self) -> None:
        """Take the status line away."""
        self._messages.status("")

    def _remember(self, now: float, done: int) -> None:
        seen = self._seen
        if seen and done < seen[-1][1]:
            seen.clear()  # a file was begun again
        if not seen or now - seen[-1][0] >= _LIVE_EVERY_S:
            seen.append((now, done))
        while len(seen) > 2 and now - seen[0][0] > _RATE_OVER_S:
            seen.popleft()

    def _line(self, event: FileProgress) -> str:
        total = "" if event.total is None else f" of {format_bytes(event.total)}"
        parts = [
            f"{_percent(event.total_done, event.total)}%" if event.total else "downloading",
            f"{format_bytes(event.total_done)}{total}",
        ]
        rate = self._rate()
        if rate:
            parts.append(f"{format_bytes(int(rate))}/s")
            if event.total is not None and event.total > event.total_done:
                parts.append(f"{_wait((event.total - event.total_done) / rate)} left")
        file = f"file {event.number} of {event.num_files}: {event.name}"
        if event.size:
            file += f" {_percent(event.done, event.size)}%"
        return ", ".join(parts) + f"  [{file}]"

    def _rate(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s - first_s > 0.5 else 0.0


def _percent(done: int, total: int | None) -> int:
    return 0 if not total else min(100, 100 * done // total)


def _wait(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
