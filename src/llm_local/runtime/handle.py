"""What an asyncio caller holds of a request: the same events as everywhere, awaited."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from functools import partial

from llm_local.engine.protocol import EngineStep, PrefillStep, TokenRequest
from llm_local.events import Event
from llm_local.generator import StepReader
from llm_local.runtime.posting import LoopPost, loop_post
from llm_local.runtime.worker import Deliver, EngineWorker

__all__ = ["AsyncEventStream"]


class AsyncEventStream:
    """Events of one request on the running event loop. Iterate it to the end, or `cancel()`, or `aclose()`.

    Detokenizing happens here, on the caller's side; the engine thread only posts ids. A stream whose reading task is
    cancelled, and one that is forgotten, ends its sequence.
    """

    def __init__(self, worker: EngineWorker, request: TokenRequest, reader: StepReader) -> None:
        self._worker = worker
        self._sequence_id = request.sequence_id
        self._reader = reader
        self._steps = _Steps()
        self._events: deque[Event] = deque(reader.opening)
        self._closed = False
        box = weakref.ref(self._steps)
        worker.submit(request, _posting(worker, request.sequence_id, loop_post(), box))
        weakref.finalize(self, worker.cancel, request.sequence_id, deliver_rest=False)

    async def until_read(self) -> None:
        """Wait until the whole prompt has been read, or the stream is over; nobody has to iterate for that."""
        await self._steps.prompt_read.wait()

    def __aiter__(self) -> AsyncEventStream:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._closed or self._reader.finished:
                raise StopAsyncIteration
            try:
                step = await self._steps.get()
            except asyncio.CancelledError:
                await self.aclose()
                raise
            if step is not None:
                self._events.extend(self._reader.feed(step))
            if self._reader.wants_cancel:
                self.cancel()
        return self._events.popleft()

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def cancel(self) -> None:
        """Ask for the end: the stream goes on to `Finish("cancelled")` within one step."""
        self._worker.cancel(self._sequence_id)

    async def aclose(self) -> None:
        """Stop without reading on; whoever still waits for an event gets the end. Harmless when repeated."""
        if not self._closed:
            self._closed = True
            self._events.clear()
            self._worker.cancel(self._sequence_id, deliver_rest=False)
            self._steps.put_step(None)


class _Steps(asyncio.Queue[EngineStep | None]):
    """What has come and is not read yet; None: closed."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt_read = asyncio.Event()

    def put_step(self, step: EngineStep | None) -> None:
        self.put_nowait(step)
        if not isinstance(step, PrefillStep):
            self.prompt_read.set()


def _posting(
    worker: EngineWorker,
    sequence_id: str,
    loop: LoopPost,
    box: weakref.ref[_Steps],
) -> Deliver:
    """What the engine thread calls. It does not keep the stream alive, and ends a sequence nobody can read."""

    def post(step: EngineStep) -> None:
        steps = box()
        try:
            if steps is not None:
                loop.post(partial(steps.put_step, step))
                return
        except RuntimeError:  # the loop is closed
            pass
        worker.cancel(sequence_id, deliver_rest=False)

    return post
