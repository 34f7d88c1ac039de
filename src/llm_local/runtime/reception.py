"""From a request to a model that is ready for it: first a place in line, then the model, then the turn.

Each model has a line of its own: who waits for one model does not wait for those who use another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from llm_local.config import Config
from llm_local.errors import Busy, LocalLLMError
from llm_local.runtime.leases import Lease
from llm_local.runtime.line import Line
from llm_local.runtime.line_facts import LineLimits, LineStatistics
from llm_local.runtime.metrics import Metrics
from llm_local.runtime.pool import ModelPool
from llm_local.runtime.reply import Admission
from llm_local.runtime.wanted import ModelKey, WantedModel
from llm_local.runtime.work import Caller

__all__ = ["Demand", "Reception"]

# One waiting place in so many is for callers of whom nobody waits yet.
RESERVED_SHARE: Final = 8


@dataclass(frozen=True, slots=True)
class Demand:
    """A request as far as line and pool are concerned; the fields are those of `Work`."""

    caller: Caller
    model: str | None
    embeds: bool = False
    keep_alive_s: float | None = None
    priority: int = 0
    deadline_s: float | None = None


class Reception:
    """Lets requests in. Use it from one event loop."""

    def __init__(self, config: Config, pool: ModelPool, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._limits = LineLimits(
            max_concurrent=config.max_concurrent_requests,
            max_waiting=config.max_waiting_requests,
            timeout_s=config.queue_timeout_s,
            # whoever floods the line leaves some places to others
            reserved=config.max_waiting_requests // RESERVED_SHARE,
        )
        self._pool = pool
        self._metrics = metrics
        self._clock = clock
        self._lines: dict[ModelKey, tuple[str, Line]] = {}
        self._closed_with: LocalLLMError | None = None
        self._glances = 0

    def check_room(self, owner: str) -> None:
        """Refuse whoever would be refused whichever model in memory they ask, before anything of a request is read.

        Raises:
            Busy: the lines of all models that write are full (kind `server_busy`).
        """
        residents, loading = self._pool.residents(), self._pool.loading()
        keys = [one.wanted.key for one in residents] + [one.wanted.key for one in loading]
        writing = [key for key in keys if not key.embeds]
        lines = [found[1] for key in writing if (found := self._lines.get(key)) is not None]
        if lines and len(lines) == len(writing) and all(line.is_full(owner) for line in lines):
            self._metrics.request_refused("server_busy")
            raise lines[0].refuse()

    async def enter(self, demand: Demand) -> Admission:
        """A place in the line of the model, before anything else is done for the request.

        Raises:
            Busy: the line is full. ModelNotFound: there is no such model here, and so no line.
        """
        arrived = self._clock()
        try:
            wanted = await self._pool.known(demand.model, embeds=demand.embeds)
            ticket = self._line(wanted).enter(
                demand.caller.owner, priority=demand.priority, deadline_s=demand.deadline_s
            )
        except LocalLLMError as error:
            self._metrics.request_refused(error.kind)
            raise
        deadline = None if demand.deadline_s is None else arrived + demand.deadline_s
        return Admission(ticket, self._clock, arrived, deadline)

    async def lease(self, demand: Demand, admission: Admission) -> Lease:
        """The model, which is part of the admission from now on.

        Raises:
            LocalLLMError: it cannot be had; the admission is given back.
        """
        try:
            async with self.before(admission):
                lease = await self._pool.lease(demand.model, demand.keep_alive_s, embeds=demand.embeds)
        except BaseException as error:
            admission.release()
            if isinstance(error, LocalLLMError):
                self._metrics.request_refused(error.kind)
            raise
        admission.lease = lease
        return lease

    @asynccontextmanager
    async def turn(self, demand: Demand) -> AsyncIterator[Lease]:
        """All three at once, given back at the end of the block: for what is no stream."""
        admission = await self.enter(demand)
        try:
            lease = await self.lease(demand, admission)
            async with self.before(admission):
                await admission.ticket.turn()
                self._metrics.waited(lease.resident.wanted.name, admission.ticket.waited_s)
                yield lease
        finally:
            admission.release()

    @asynccontextmanager
    async def glance(self, demand: Demand) -> AsyncIterator[Lease]:
        """The model without a turn: for what is done in a moment and outside of its engine.

        Raises:
            Busy: more than the limit of a line do that already.
        """
        if self._closed_with is not None:
            raise self._closed_with
        if self._glances >= max(1, self._limits.max_waiting):
            self._metrics.request_refused("server_busy")
            raise Busy(
                f"The server is busy: {self._glances} requests of this kind are being done.",
                "Try again later.",
                retry_after_s=1.0,
                kind="server_busy",
            )
        self._glances += 1
        try:
            lease = await self._pool.lease(demand.model, demand.keep_alive_s, embeds=demand.embeds)
            try:
                yield lease
            finally:
                lease.release()
        finally:
            self._glances -= 1

    @asynccontextmanager
    async def before(self, admission: Admission) -> AsyncIterator[None]:
        """What is done inside must be done when the deadline passes.

        Raises:
            Busy: it was not (kind `deadline_exceeded`).
        """
        left_s = None if admission.deadline is None else max(0.0, admission.deadline - self._clock())
        try:
            async with asyncio.timeout(left_s):
                yield
        except TimeoutError:
            raise Busy(
                "The deadline of the request passed before it was answered.",
                "Allow more time.",
                kind="deadline_exceeded",
            ) from None

    def statistics(self) -> dict[str, LineStatistics]:
        """Every line there is, by the name of its model."""
        return {name: line.statistics() for name, line in self._lines.values()}

    def line_of(self, key: ModelKey) -> LineStatistics | None:
        """One of them."""
        found = self._lines.get(key)
        return None if found is None else found[1].statistics()

    def close(self, error: LocalLLMError) -> None:
        """Refuse everybody who waits, and whoever comes, with `error`; those who run go on."""
        self._closed_with = error
        for _, line in self._lines.values():
            line.close(error)

    async def idle(self) -> None:
        """Wait until nobody runs or waits."""
        for _, line in list(self._lines.values()):
            await line.idle()

    def _line(self, wanted: WantedModel) -> Line:
        found = self._lines.get(wanted.key)
        if found is None:
            name = f"{wanted.name}{' (embeddings)' if wanted.key.embeds else ''}"
            found = self._lines[wanted.key] = (name, Line(self._limits, clock=self._clock))
            if self._closed_with is not None:
                found[1].close(self._closed_with)
        return found[1]
