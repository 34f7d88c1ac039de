"""How far a download or a load is: one line that updates on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llm_local.events import Progress, Stage
from llm_local.terminal.sizes import format_bytes
from llm_local.terminal.streams import Messages

__all__ = ["VERBS", "ProgressReporter", "format_bytes"]

VERBS: Final[dict[Stage, str]] = {
    "queued": "waiting",
    "downloading": "downloading",
    "verifying": "verifying",
    "loading": "loading",
    "prefill": "reading the prompt",
    "embedding": "embedding",
}
_LIVE_EVERY_S: Final = 0.1
_PLAIN_EVERY_S: Final = 5.0
# A stage that ends sooner is not worth a word; a download always is, because it uses the network.
_QUIET_S: Final = 0.4


@dataclass(slots=True)
class _Track:
    """What is known of one thing in progress. Times in monotonic seconds; `due_s` is when to speak next."""

    started_s: float
    first_done: int
    due_s: float
    shown: bool = False


class ProgressReporter:
    """A callable that takes every Progress event and decides what is worth showing."""

    def __init__(self, messages: Messages, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._messages = messages
        self._clock = clock
        self._tracks: dict[tuple[Stage, str], _Track] = {}  # files may be fetched side by side

    def __call__(self, progress: Progress) -> None:
        """Show `progress`, at once, later or not at all."""
        now = self._clock()
        live = self._messages.live
        key = (progress.stage, progress.label)
        if key not in self._tracks:
            quiet_s = 0.0 if progress.stage == "downloading" else _QUIET_S if live else _PLAIN_EVERY_S
            self._tracks[key] = _Track(now, progress.done, now + quiet_s)
        track = self._tracks[key]
        complete = progress.total is not None and progress.done >= progress.total
        if complete and not track.shown and progress.stage != "downloading":
            return  # nobody was told that it began, so nobody waits to be told that it is over
        if now < track.due_s and not (complete and track.shown and track.due_s < math.inf):
            return
        track.shown = True
        track.due_s = math.inf if complete else now + (_LIVE_EVERY_S if live else _PLAIN_EVERY_S)
        line = _describe(progress, track, now)
        if live:
            self._messages.status(line)
        else:
            self._messages.note(line)

    def close(self) -> None:
        """Take the status line away."""
        self._messages.status("")
        self._tracks.clear()


def _describe(progress: Progress, track: _Track, now: float) -> str:
    what = f"{VERBS[progress.stage]} {progress.label}".rstrip()
    in_bytes = progress.stage in ("downloading", "verifying", "loading")
    done = format_bytes(progress.done) if in_bytes else str(progress.done)
    if not progress.total:
        return f"{what}: {done}"
    total = format_bytes(progress.total) if in_bytes else str(progress.total)
    line = f"{what}: {100 * progress.done // progress.total}% ({done} of {total})"
    elapsed, moved = now - track.started_s, progress.done - track.first_done
    if progress.stage == "downloading" and elapsed > 1 and moved > 0:
        rate = moved / elapsed
        line += f", {format_bytes(int(rate))}/s, {_format_wait((progress.total - progress.done) / rate)} left"
    return line


def _format_wait(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
