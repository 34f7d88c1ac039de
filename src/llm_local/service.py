"""The service door: everything the front-ends of many callers need, and nothing of HTTP.

    service = Service(load_config())
    reply = await service.begin(Work(Caller("local"), messages=(Message("user", "Hi"),)))
    async for event in reply: ...

One event loop owns a service; models compute in threads of their own, so the loop never waits for one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from llm_local.config import Config
from llm_local.runtime.answers import EmbeddedTexts, KnownModel, Loaded, Ranked, Readiness, Rendered
from llm_local.runtime.pool import ModelPool, OpenInPool
from llm_local.runtime.preparing import prepare_work
from llm_local.runtime.reply import ServedReply
from llm_local.runtime.work import Caller, Work

__all__ = [
    "Caller",
    "EmbeddedTexts",
    "KnownModel",
    "Loaded",
    "Ranked",
    "Readiness",
    "Rendered",
    "ServedReply",
    "Service",
    "Work",
]

# Tokenizing and compiling are short and hold the interpreter's lock; more threads would only take turns.
PREPARING_THREADS: Final = 2


class Service:
    """All that callers can ask for. Use it from one event loop; `aclose` ends every thread it started."""

    def __init__(
        self,
        config: Config,
        *,
        open_model: OpenInPool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self._clock = clock
        self._pool = ModelPool(config, open_model=open_model, clock=clock)
        self._threads = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare")

    async def begin(self, work: Work) -> ServedReply:
        """Make a reply ready: admitted, its model loaded, its prompt rendered, its constraint compiled.

        Raises:
            Busy: the line is full (kind `server_busy`), which is known before anything else is done.
            LocalLLMError: all else that can be wrong with the request; the reply itself only fails in computing.
        """
        lease = await self._pool.lease(work.model, work.keep_alive_s)
        try:
            loop = asyncio.get_running_loop()
            opened = await loop.run_in_executor(self._threads, prepare_work, lease.model, self.config, work)
            return ServedReply(lease, opened)
        except BaseException:
            lease.release()
            raise

    async def load(self, model: str | None, keep_alive_s: float | None = None) -> Loaded:
        """Bring a model into memory, and say how long it stays."""
        lease = await self._pool.lease(model, keep_alive_s)
        lease.release()
        return lease.resident.facts(self._clock())

    async def aclose(self) -> None:
        """End everything. Harmless when repeated."""
        await self._pool.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
