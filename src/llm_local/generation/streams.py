"""From the engine's steps to the one stream of events."""

from __future__ import annotations

import dataclasses
import weakref
from collections import deque
from collections.abc import Iterator

from llm_local.engine.driver import Driver
from llm_local.engine.protocol import EngineStep, PrefillStep, TokenRequest
from llm_local.events import Event, Finish, FinishReason, Progress
from llm_local.text.pipeline import TextPipeline

__all__ = ["EventStream", "StepReader"]


class StepReader:
    """One request's steps to its events. Sans-I/O: inline, threaded and awaited streams all read through it."""

    def __init__(self, pipeline: TextPipeline, opening: tuple[Event, ...] = ()) -> None:
        """`opening` are events that come before the first step."""
        self._pipeline = pipeline
        self.opening = opening
        self.finished = False

    @property
    def wants_cancel(self) -> bool:
        """True when a stop string was found and the engine does not know yet that the reply is over."""
        return self._pipeline.stopped and not self.finished

    def feed(self, step: EngineStep) -> list[Event]:
        """The events of one step; of the last one, held-back text and Finish.

        Raises:
            LocalLLMError: the sequence failed.
        """
        if isinstance(step, PrefillStep):
            return [Progress("prefill", step.done, step.total)]
        events: list[Event] = []
        if step.token_id is not None and not self._pipeline.stopped:
            events += self._pipeline.feed(step.token_id, step.logprob)
        if step.report is None:
            return events
        self.finished = True
        if step.error is not None:
            raise step.error
        events += self._pipeline.finish()
        usage = step.report.usage
        if not self._pipeline.stopped:
            reason = step.finish_reason or "cancelled"
            return [*events, Finish(self._named(reason), usage, step.report.timings)]
        # what the engine sampled before it heard of the stop string is no part of the reply
        usage = dataclasses.replace(usage, completion_tokens=self._pipeline.num_tokens)
        return [*events, Finish(self._named("stop"), usage, step.report.timings, self._pipeline.stop)]

    def _named(self, reason: FinishReason) -> FinishReason:
        """A reply that ended by itself and made calls waits for their results."""
        return "tool_calls" if reason == "stop" and self._pipeline.num_calls else reason


class EventStream:
    """Events of one request. Iterate it to the end, or `cancel()`, or `close()`; a context manager closes it.

    A stream that is forgotten half-way is cancelled when it is collected.
    """

    def __init__(self, driver: Driver, request: TokenRequest, reader: StepReader) -> None:
        driver.submit(request)
        self._driver = driver
        self._sequence_id = request.sequence_id
        self._reader = reader
        self._events: deque[Event] = deque(reader.opening)
        self._closed = False
        weakref.finalize(self, driver.forget, request.sequence_id)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._events:
            if self._closed or self._reader.finished:
                raise StopIteration
            self._read_step()
        return self._events.popleft()

    def poll(self) -> list[Event]:
        """The events that have come since the last one read, without waiting.

        Raises:
            LocalLLMError: the sequence failed; what came before it is not given any more.
        """
        while not self._closed and not self._reader.finished and self._driver.ready(self._sequence_id):
            self._read_step()
        events = list(self._events)
        self._events.clear()
        return events

    def __enter__(self) -> EventStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self) -> None:
        """Ask for the end: the stream goes on to `Finish("cancelled")` within one step. Safe from a signal handler."""
        self._driver.cancel(self._sequence_id)

    def close(self) -> None:
        """Stop without reading on, and free the request's memory. Harmless when repeated."""
        self._closed = True
        self._events.clear()
        self._driver.abandon(self._sequence_id)

    def _read_step(self) -> None:
        self._events.extend(self._reader.feed(self._driver.next_step(self._sequence_id)))
        if self._reader.wants_cancel:
            self.cancel()
