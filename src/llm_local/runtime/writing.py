"""Replies of models to requests: made ready, begun, and remembered where that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from llm_local.config import Config
from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.events import Event, Finish
from llm_local.options import Bound
from llm_local.runtime.answers import Rendered
from llm_local.runtime.leases import Lease
from llm_local.runtime.metrics import Metrics
from llm_local.runtime.preparing import Opened, open_again, open_work, prepare
from llm_local.runtime.reception import Demand, Reception
from llm_local.runtime.reply import Admission, ServedReply
from llm_local.runtime.response_cache import ResponseCache
from llm_local.runtime.sources import EventSource, KeptSource, LiveSource
from llm_local.runtime.work import Work

__all__ = ["Writer"]

NUM_CHOICES: Final = Bound(1, 128, integer=True)


class Writer:
    """Begins replies. `threads` is where texts and grammars are read."""

    def __init__(
        self,
        config: Config,
        reception: Reception,
        threads: ThreadPoolExecutor,
        metrics: Metrics,
        cache: ResponseCache | None,
    ) -> None:
        self._config = config
        self._reception = reception
        self._threads = threads
        self._metrics = metrics
        self._cache = cache
        self._putting: set[asyncio.Task[None]] = set()

    async def begin(self, work: Work) -> ServedReply:
        """See `Service.begin`."""
        demand = _demand(work)
        admission = await self._reception.enter(demand)
        lease = await self._reception.lease(demand, admission)
        try:
            async with self._reception.before(admission):
                opened = await self._in_thread(
                    open_work, lease.model, self._config, work, self._digest(lease)
                )
                return await self._reply(admission, lease, opened)
        except BaseException as error:
            admission.release()
            self._refused(error)
            raise

    async def begin_many(self, work: Work, n: int) -> list[ServedReply]:
        """See `Service.begin_many`."""
        NUM_CHOICES.check("n", n)
        demand = _demand(work)
        first = await self._reception.enter(demand)
        admissions, replies = [first], list[ServedReply]()
        try:
            # all places before any work: a request is let in as a whole, or not at all
            for _ in range(n - 1):
                admissions.append(await self._reception.enter(demand))
            lease = await self._reception.lease(demand, first)
            async with self._reception.before(first):
                digest = self._digest(lease)
                opened = await self._in_thread(open_work, lease.model, self._config, work, digest)
                lead = LiveSource(first.ticket, lease, opened)
                replies.append(await self._reply(first, lease, opened, lead))
                for number, admission in enumerate(admissions[1:], 1):
                    own = admission.lease = lease.again()
                    another = await self._in_thread(open_again, own.model, work, opened, number, digest)
                    source = LiveSource(admission.ticket, own, another, lead)
                    replies.append(await self._reply(admission, own, another, source))
            return replies
        except BaseException as error:
            for reply in replies:
                await reply.aclose()
            for admission in admissions:
                admission.release()
            self._refused(error)
            raise

    async def render(self, work: Work) -> Rendered:
        """See `Service.render`."""
        async with self._reception.glance(_demand(work)) as lease:
            prepared, _ = await self._in_thread(prepare, lease.model, self._config, work)
            window = lease.model.info.context_length
            notices = (*lease.notices, *prepared.notices)
            return Rendered(lease.name, prepared.prompt_text, prepared.prompt_ids, window, notices)

    def finished(self, reply: ServedReply, finish: Finish) -> None:
        """Count it, and keep it where it is the only one there can be."""
        admission, seen = reply.admission, reply.measured
        total_s = admission.clock() - admission.arrived
        self._metrics.request_finished(reply.label, finish.reason, finish.usage, finish.timings, total_s)
        self._metrics.token_gaps(reply.label, seen.gaps)
        self._metrics.waited(reply.label, admission.ticket.waited_s)
        if self._cache is None or reply.cache_key is None or reply.from_cache or finish.reason == "cancelled":
            return
        task = asyncio.get_running_loop().create_task(
            self._cache.put(reply.cache_key, (*seen.events, finish))
        )
        self._putting.add(task)
        task.add_done_callback(self._putting.discard)

    def failed(self, reply: ServedReply, error: Exception) -> None:
        """Count it."""
        self._metrics.request_failed(reply.label, getattr(error, "kind", "internal_error"))

    async def aclose(self) -> None:
        """Finish what is being kept."""
        await asyncio.gather(*self._putting, return_exceptions=True)

    async def _reply(
        self, admission: Admission, lease: Lease, opened: Opened, source: EventSource | None = None
    ) -> ServedReply:
        kept = await self._kept(lease, opened)
        if kept is not None:
            source = KeptSource(kept)
        elif source is None:
            source = LiveSource(admission.ticket, lease, opened)
        reply = ServedReply(admission, lease, opened, source, self)
        if kept is not None:
            reply.from_cache = True
            admission.release()
        return reply

    async def _kept(self, lease: Lease, opened: Opened) -> tuple[Event, ...] | None:
        if self._cache is None or opened.cache_key is None:
            return None
        kept = await self._cache.get(opened.cache_key)
        self._metrics.cache_looked_up(lease.resident.wanted.name, hit=kept is not None)
        return kept

    def _digest(self, lease: Lease) -> str:
        return "" if self._cache is None else lease.text.digest

    def _refused(self, error: BaseException) -> None:
        if isinstance(error, LocalLLMError) and not isinstance(error, InvalidRequest):
            self._metrics.request_refused(error.kind)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _demand(work: Work) -> Demand:
    return Demand(
        work.caller,
        work.model,
        keep_alive_s=work.keep_alive_s,
        priority=work.priority,
        deadline_s=work.deadline_s,
    )
