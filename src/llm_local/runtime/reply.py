"""One reply that a service gives: what is known of it before it begins, then its events."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from llm_local.events import ContextTrimmed, Delta, Event, Finish, Timings, Usage
from llm_local.options import GenerationOptions
from llm_local.runtime.leases import Lease
from llm_local.runtime.line_facts import Place
from llm_local.runtime.preparing import Opened
from llm_local.runtime.sources import EventSource
from llm_local.runtime.speed import SpeedBreakdown, speed_breakdown
from llm_local.runtime.ticket import Ticket
from llm_local.specs import ModelInfo

__all__ = ["Admission", "Measured", "Recorder", "ServedReply"]


class Recorder(Protocol):
    """Who hears how a reply went, once."""

    def finished(self, reply: ServedReply, finish: Finish) -> None:
        """It ended by itself, or was cancelled, or nobody reads it any more."""

    def failed(self, reply: ServedReply, error: Exception) -> None:
        """It did not."""


@dataclass(eq=False)
class Admission:
    """What a request holds: its place in line and its share of a model. `arrived` and `deadline` by `clock`."""

    ticket: Ticket
    clock: Callable[[], float]
    arrived: float
    deadline: float | None = None
    lease: Lease | None = None

    def release(self) -> None:
        """Give both back. Harmless when repeated."""
        self.ticket.leave()
        if self.lease is not None:
            self.lease.release()


@dataclass
class Measured:
    """What is seen of a reply while it is read. Times by the service's clock."""

    ready: float
    first_token: float | None = None
    last_token: float | None = None
    num_tokens: int = 0
    gaps: list[float] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class ServedReply:
    """Iterate it for its events, `Finish` last; or `cancel()`; or `aclose()`, which frees all that it holds.

    - `id`: made here, and nobody else's. `model`: the name it was asked for by, or of what stands in.
    - `prompt_text`, `prompt_ids`, `prompt_tokens`: exactly what the model sees. `options`: as they hold, with the seed.
    - `notices`: lines people should see. `trimmed`: what was left out of the conversation.
    - `timed_out`: it was cut short because its deadline had passed; its `Finish` then says "cancelled".
    - `speed`: where the time went, once it is finished. `from_cache`: an earlier reply, told again.

    One reader at a time; anybody on the same event loop may `cancel` or `aclose`.
    """

    def __init__(
        self, admission: Admission, lease: Lease, opened: Opened, source: EventSource, recorder: Recorder
    ) -> None:
        prepared = opened.prepared
        self.id = uuid.uuid4().hex
        self.model = lease.name
        self.info: ModelInfo = lease.model.info
        self.prompt_text = prepared.prompt_text
        self.prompt_ids = prepared.prompt_ids
        self.prompt_tokens = len(prepared.prompt_ids)
        self.options: GenerationOptions = prepared.options
        self.notices = (*lease.notices, *prepared.notices)
        self.trimmed: ContextTrimmed | None = prepared.trimmed
        self.load_s = lease.load_s
        self._tokens = lease.model.generator.tokens
        self.timed_out = False
        self.from_cache = False
        self.speed: SpeedBreakdown | None = None
        self.cache_key = opened.cache_key
        self.label = lease.resident.wanted.name
        self.admission = admission
        self._source = source
        self._recorder: Recorder | None = recorder  # None: it has heard
        self.measured = Measured(admission.clock())
        loop = asyncio.get_running_loop()
        self._forgotten = weakref.finalize(self, _forget, loop, admission)
        self._forgotten.atexit = False
        self._timer: asyncio.TimerHandle | None = None
        if admission.deadline is not None:
            left_s = max(0.0, admission.deadline - admission.clock())
            self._timer = loop.call_later(left_s, _expire, weakref.ref(self))

    def __aiter__(self) -> ServedReply:
        return self

    async def __anext__(self) -> Event:
        try:
            event = await self._source.next()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        except Exception as error:
            if self._recorder is not None:
                recorder, self._recorder = self._recorder, None
                recorder.failed(self, error)
            await self.aclose()
            raise
        if event is None:
            await self.aclose()
            raise StopAsyncIteration
        if not isinstance(event, Finish):
            self._note(event)
            return event
        finish = self._told(event)
        self._end(finish)
        await self.aclose()
        return finish

    async def __aenter__(self) -> ServedReply:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def place(self) -> Place | None:
        """Where it stands in line; None when it does not wait there."""
        ticket = self.admission.ticket
        return ticket.place if ticket.state == "waiting" else None

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token of the model, which may be part of a character."""
        return self._tokens.bytes_of(token_id)

    def cancel(self) -> None:
        """Ask for the end: the events go on to `Finish("cancelled")`, which comes soon."""
        self._source.cancel()

    async def aclose(self) -> None:
        """Stop without reading on, and free place, slot and memory. Harmless when repeated."""
        if self._timer is not None:
            self._timer.cancel()
        self._forgotten.detach()
        await self._source.aclose()
        self.admission.release()
        usage = Usage(self.prompt_tokens if self.measured.num_tokens else 0, 0, self.measured.num_tokens)
        self._end(Finish("cancelled", usage, Timings()))

    def _end(self, finish: Finish) -> None:
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            recorder.finished(self, finish)
        self.measured.events.clear()

    def _note(self, event: Event) -> None:
        seen = self.measured
        if self.cache_key is not None:
            seen.events.append(event)
        if isinstance(event, Delta) and event.token_ids:
            now = self.admission.clock()
            if seen.last_token is None:
                seen.first_token = now
            else:
                seen.gaps.append((now - seen.last_token) / len(event.token_ids))
            seen.last_token = now
            seen.num_tokens += len(event.token_ids)

    def _told(self, finish: Finish) -> Finish:
        """With the times of all that came before the engine, which counts from when it was given the request."""
        admission, seen, timings = self.admission, self.measured, finish.timings
        now = admission.clock()
        admitted = admission.ticket.entered + admission.ticket.waited_s
        queued_s = max(0.0, admitted - seen.ready)
        before_s = seen.ready - admission.arrived + queued_s
        timings = dataclasses.replace(
            timings,
            queued_s=timings.queued_s + queued_s,
            load_s=self.load_s,
            first_token_s=timings.first_token_s + before_s if timings.first_token_s else 0.0,
        )
        self.speed = speed_breakdown(finish.usage, timings, now - admission.arrived)
        return dataclasses.replace(finish, timings=timings)

    def expire(self) -> None:
        """Its deadline has passed. In line the line itself knows."""
        if self.admission.ticket.state != "waiting":
            self.timed_out = True
            self.cancel()


def _expire(found: weakref.ref[ServedReply]) -> None:
    reply = found()
    if reply is not None:
        reply.expire()


def _forget(loop: asyncio.AbstractEventLoop, admission: Admission) -> None:
    """A collector may come at any moment and in any thread, so nothing is done here."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(admission.release)
