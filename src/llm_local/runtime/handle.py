"""What an asyncio caller holds of a request: the same events as everywhere, awaited."""

from __future__ import annotations

import asyncio
from collections import deque

from llm_local.engine.protocol import EngineStep, TokenRequest
from llm_local.events import Event
from llm_local.generator import StepReader
from llm_local.runtime.worker import EngineWorker

__all__ = ["AsyncEventStream"]


class AsyncEventStream:
    """Events of one request on the running event loop. Iterate it to the end, or `cancel()`, or `aclose()`.

    Detokenizing happens here, on the caller's side; the engine thread only posts ids.
    """

    def __init__(self, worker: EngineWorker, request: TokenRequest, reader: StepReader) -> None:
        self._worker = worker
        self._sequence_id = request.sequence_id
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._steps: asyncio.Queue[EngineStep] = asyncio.Queue()
        self._events: deque[Event] = deque(reader.opening)
        worker.submit(request, self._deliver)

    def __aiter__(self) -> AsyncEventStream:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._reader.finished:
                raise StopAsyncIteration
            self._events.extend(self._reader.feed(await self._steps.get()))
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
        """Stop without reading on. Harmless when repeated."""
        if not self._reader.finished:
            self._worker.cancel(self._sequence_id, deliver_rest=False)

    def _deliver(self, step: EngineStep) -> None:
        try:
            self._loop.call_soon_threadsafe(self._steps.put_nowait, step)
        except RuntimeError:  # the loop is closed, nobody reads: the engine must not suffer for it
            self._worker.cancel(self._sequence_id, deliver_rest=False)
