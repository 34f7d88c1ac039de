"""What lies in memory, and how models come and go there: one comes at a time, so that what is measured holds."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from llm_local.runtime.leases import Loading, Resident
from llm_local.runtime.residents import Opener
from llm_local.runtime.room import Room, RoomLimits
from llm_local.runtime.wanted import ModelKey

__all__ = ["ModelMemory"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

THREADS: Final = 8


class ModelMemory:
    """The residents, and the threads that bring and close them. Use it from one event loop.

    `changed` is set once and replaced, whenever somebody who waits for room or for a model should look again.
    """

    def __init__(self, opener: Opener, limits: RoomLimits, clock: Callable[[], float]) -> None:
        self.residents: dict[ModelKey, Resident] = {}
        self.changed = asyncio.Event()
        self.uses = itertools.count(1)
        self._opener = opener
        self._limits = limits
        self._clock = clock
        self._closing: set[asyncio.Task[None]] = set()
        self._one_comes = asyncio.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="models")

    async def bring(self, loading: Loading, keep_alive_s: float) -> Resident | None:
        """Load a model once there is room for it; None when nobody wants it any more by then.

        Raises:
            LocalLLMError: it cannot be loaded, or there can never be room for it.
        """
        wanted, opener = loading.wanted, self._opener
        found = await self.in_thread(opener.find, wanted, loading.report)
        device, need = await self.in_thread(opener.need, wanted, found, self._room().most_bytes)
        loading.waits_for_room_since = self._clock()
        while loading.is_wanted:
            async with self._one_comes:
                if await self._made_room(loading, device, need):
                    reserved = self._room().reserved_bytes(device)
                    memory = await self.in_thread(opener.open, wanted, found, loading.report, reserved)
                    resident = Resident(wanted, memory, device, keep_alive_s)
                    resident.idle_since, resident.last_used = self._clock(), next(self.uses)
                    self.residents[wanted.key] = resident
                    return resident
                changed = self.changed
            await changed.wait()
        return None

    def drop(self, resident: Resident) -> asyncio.Task[None]:
        """No resident any more now, and out of memory as soon as its thread has ended: when the task is done."""
        if self.residents.get(resident.wanted.key) is resident:
            del self.residents[resident.wanted.key]
        task = asyncio.get_running_loop().create_task(self._close(resident))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def wake(self) -> None:
        """Have everybody who waits look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def in_thread(self, function: Callable[..., Result], *args: Any) -> Result:
        """Run what takes time."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def aclose(self) -> None:
        """Close all residents, in use or not, and end the threads."""
        for resident in list(self.residents.values()):
            self.drop(resident)
        await self._gone()
        self._threads.shutdown(wait=False)

    async def _made_room(self, loading: Loading, device: str, need: int) -> bool:
        """Let idle models go until one more fits; False, and nobody goes, while models in use are in the way."""
        await self._gone()
        victims = self._room().victims(device, need)
        if victims is None:
            return False
        loading.waits_for_room_since = None
        for resident in [self.residents[victim.key] for victim in victims]:
            logger.info("%s goes to make room for %s", resident.wanted.name, loading.wanted.name)
            self.drop(resident)
        await self._gone()
        return True

    def _room(self) -> Room:
        return Room(self._limits, [one.held() for one in self.residents.values()], self._opener.free_bytes)

    async def _close(self, resident: Resident) -> None:
        if resident.loaded is not None:
            await self.in_thread(resident.loaded.close)
            resident.loaded = None  # whoever still knows the resident does not keep the weights
            await self.in_thread(self._opener.release)
        self.wake()

    async def _gone(self) -> None:
        """Wait until all that was let go is out of memory."""
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)
