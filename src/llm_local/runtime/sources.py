"""Where the events of a reply come from: from a model, after a wait in line, or from a reply that was kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from typing import Protocol

from llm_local.events import Event, Finish, Progress, Timings, Usage
from llm_local.runtime.handle import AsyncEventStream
from llm_local.runtime.leases import Lease
from llm_local.runtime.preparing import Opened
from llm_local.runtime.ticket import Ticket

__all__ = ["EventSource", "KeptSource", "LiveSource"]


class EventSource(Protocol):
    """Events one after the other, `Finish` last."""

    async def next(self) -> Event | None:
        """The next one; None when there are no more."""

    def cancel(self) -> None:
        """Ask for the end: a `Finish` follows soon."""

    async def aclose(self) -> None:
        """Stop; whoever waits for an event gets None. Harmless when repeated."""


class LiveSource:
    """A reply that is computed: in line until it is its turn, then in the engine.

    With a `lead`, which has the same prompt, it begins when that one has read it, so that nothing is read twice.
    """

    def __init__(self, ticket: Ticket, lease: Lease, opened: Opened, lead: LiveSource | None = None) -> None:
        self._ticket = ticket
        self._lease: Lease | None = lease
        self._opened: Opened | None = opened
        self._lead = lead
        self._opening: deque[Event] = deque(opened.reader.opening)
        opened.reader.opening = ()  # what a reader should know first is told before the wait
        self._places = ticket.places()
        self._stream: AsyncEventStream | None = None
        self._cancelled = asyncio.Event()
        self._over = False

    async def next(self) -> Event | None:
        """The next event; what the line or the engine raises."""
        if self._opening:
            return self._opening.popleft()
        if self._stream is None and not self._over:
            event = await self._wait()
            if event is not None:
                return event
        if self._stream is None:
            return None
        return await anext(self._stream, None)

    def cancel(self) -> None:
        """Leave the line, or end the sequence within a step."""
        self._cancelled.set()
        if self._stream is not None:
            self._stream.cancel()
        else:
            self._ticket.cancel()

    async def aclose(self) -> None:
        """Leave the line and the engine, and let go of the model."""
        self._over = True
        self._cancelled.set()
        self._ticket.leave()
        with suppress(RuntimeError):  # a reader waits in it, and wakes up from the line's own news
            await self._places.aclose()
        if self._stream is not None:
            await self._stream.aclose()
        # the worker knows the engine, and with it the weights
        self._stream = self._lease = self._opened = self._lead = None

    async def until_read(self) -> None:
        """Wait until the prompt has been read, as far as that is on its way. Nobody has to read the events for that."""
        if self._stream is None and self._ticket.state == "running":
            self._start()
        if self._stream is not None:
            await self._stream.until_read()

    async def _wait(self) -> Event | None:
        """A place in line, or the end; None when it has begun."""
        place = await anext(self._places, None)
        if place is not None and place.position:
            return Progress("queued", place.position, place.total)
        if await self._ticket.turn() and self._lead is not None:
            await _first_of(self._lead.until_read(), self._cancelled.wait())
        if self._over:
            return None
        if self._cancelled.is_set() or self._ticket.state != "running":
            self._over = True
            return Finish("cancelled", Usage(), Timings())
        self._start()
        return None

    def _start(self) -> None:
        if self._lease is not None and self._opened is not None and not self._over:
            worker = self._lease.text.worker
            self._stream = AsyncEventStream(worker, self._opened.request, self._opened.reader)


class KeptSource:
    """A reply that was kept."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._events = deque(events)

    async def next(self) -> Event | None:
        """The next event, at once."""
        return self._events.popleft() if self._events else None

    def cancel(self) -> None:
        """Only the end is left."""
        finish = self._events.pop() if self._events else None
        self._events.clear()
        if isinstance(finish, Finish):
            self._events.append(Finish("cancelled", finish.usage, finish.timings))

    async def aclose(self) -> None:
        """Nothing is left."""
        self._events.clear()


async def _first_of(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
