"""Many requests side by side, their answers in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, TypeVar

from llm_local.errors import LocalLLMError
from llm_local.events import Completion, Event, Finish, fold
from llm_local.generation.streams import EventStream

__all__ = ["WIDTH", "Batch"]

Job = TypeVar("Job")

WIDTH: Final = 32
# How far ahead of the oldest unanswered job others are begun, in widths: one long answer should not leave the
# engine idle, and what waits behind it is lost if the process ends.
_AHEAD: Final = 4


class Batch(Generic[Job]):
    """Iterate it for `(job, outcome)` in the order of the jobs, each as soon as it and all before it are ready.

    An outcome is the Completion or the error of that job alone; any other failure is raised. Jobs are taken from
    their iterable when there is room: at most `width` streams are open at once. `on_event` sees every event.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        start: Callable[[Job], EventStream],
        *,
        width: int = WIDTH,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self._jobs = iter(jobs)
        self._start = start
        self._width = width
        self._on_event = on_event
        self._places: deque[_Place[Job]] = deque()  # oldest first
        self._exhausted = False
        self._cancelled = False

    def __iter__(self) -> Iterator[tuple[Job, Completion | Exception]]:
        while not self._cancelled:
            self._fill()
            if not self._places:
                return
            self._read()
            yield from self._ready()

    def cancel(self) -> None:
        """End the iteration within one step; unfinished jobs have no outcome. Safe from a signal handler."""
        self._cancelled = True
        for place in list(self._places):
            place.cancel()

    def _fill(self) -> None:
        num_open = sum(place.stream is not None for place in self._places)
        while num_open < self._width and len(self._places) < _AHEAD * self._width and not self._exhausted:
            try:
                job = next(self._jobs)
            except StopIteration:
                self._exhausted = True
                return
            place = _Place(job, self._start)
            self._places.append(place)
            num_open += place.stream is not None
            if self._cancelled:  # a signal came while the stream was opened, and did not see it
                place.cancel()
                return

    def _read(self) -> None:
        """Wait for the oldest stream's next event, then take what has come for the others.

        Nobody else is waited for: a stream may stand in line until one of these ends, perhaps at a stop string that
        only reading finds.
        """
        running = [place for place in self._places if place.stream is not None]
        for place in running:
            if not self._cancelled:
                place.advance(self._on_event, wait=place is running[0])

    def _ready(self) -> Iterator[tuple[Job, Completion | Exception]]:
        while self._places and (outcome := self._places[0].outcome) is not None:
            if isinstance(outcome, Completion) and outcome.finish_reason == "cancelled":
                return
            yield self._places.popleft().job, outcome


class _Place(Generic[Job]):
    """One job: its stream while it runs, then its outcome."""

    def __init__(self, job: Job, start: Callable[[Job], EventStream]) -> None:
        self.job = job
        self.stream: EventStream | None = None
        self.outcome: Completion | Exception | None = None
        self._events: list[Event] = []
        try:
            self.stream = start(job)
        except Exception as error:  # whatever is wrong in preparing one job concerns that job alone
            self.outcome = error

    def advance(self, on_event: Callable[[Event], None], *, wait: bool) -> None:
        """Read the events that have come; with `wait` at least one, for which the engine may step for all."""
        if self.stream is None:
            return
        try:
            events = [next(self.stream)] if wait else []
            events += self.stream.poll()
        except LocalLLMError as error:  # anything else is the engine's, and ends the batch
            self.outcome = error
            self.stream = None
            return
        for event in events:
            on_event(event)
        self._events += events
        if events and isinstance(events[-1], Finish):
            self.outcome = fold(self._events)
            self.stream = None

    def cancel(self) -> None:
        """Ask the stream to end."""
        stream = self.stream
        if stream is not None:
            stream.cancel()
