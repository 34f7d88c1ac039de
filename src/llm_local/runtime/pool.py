"""The models in memory: loaded when they are first asked for, shared by all who use them, gone when nobody does.

The laws: many who ask for a model at once cause one load. A model in use never goes. Who wants a model for which there
is no room waits until others are idle; a model for which there never can be is refused at once, and nothing goes for
it. A load that fails is tried again by whoever comes next. All bookkeeping is done on one event loop; what takes time
runs in threads.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import Final

from llm_local.config import Config
from llm_local.errors import Busy, EngineError, InvalidRequest, LocalLLMError, ModelNotFound
from llm_local.runtime.answers import KnownModel, Readiness
from llm_local.runtime.crashes import CrashRecord
from llm_local.runtime.leases import Lease, Loading, Resident
from llm_local.runtime.memory import ModelMemory
from llm_local.runtime.readiness import readiness_of
from llm_local.runtime.residents import ModelOpener, Opener
from llm_local.runtime.room import RoomLimits
from llm_local.runtime.wanted import ModelKey, WantedModel, check_here, wanted_model

__all__ = ["ModelPool"]

logger = logging.getLogger(__name__)

# How long new requests for models in use may keep another model waiting for its room.
PATIENCE_S: Final = 2.0


class ModelPool:
    """Hands out leases of models by name. Use it from one event loop.

    `keep_alive_s` of a lease is how long the model stays after its last use from then on: -1 for good, 0 not at all.
    """

    def __init__(
        self,
        config: Config,
        *,
        opener: Opener | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_loaded: Callable[[str, float], None] = lambda name, seconds: None,
    ) -> None:
        """`on_loaded` hears of every model that was loaded, by its name, and how many seconds that took."""
        self._config = config
        self._on_loaded = on_loaded
        self._clock = clock
        self._crashes = CrashRecord(clock)
        budget = config.model_memory_mb
        limits = RoomLimits(config.max_loaded_models, None if budget is None else budget << 20)
        self._memory = ModelMemory(opener or ModelOpener(), limits, clock)
        self._loading: dict[ModelKey, Loading] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._own_was_loaded = False  # the last time that it was tried

    async def lease(
        self,
        name: str | None,
        keep_alive_s: float | None = None,
        *,
        embeds: bool = False,
        retry: bool = False,
    ) -> Lease:
        """The model of that name, loaded where it is not; None is the service's own. `retry` ends a quarantine.

        Where the service's own is not here and another stands in for it, that one is for those who name none.

        Raises:
            LocalLLMError: there is no such model here, it cannot be loaded, or it can never fit the memory.
        """
        if keep_alive_s is not None and math.isnan(keep_alive_s):
            raise InvalidRequest("keep_alive is not a number.", param="keep_alive")
        wanted = wanted_model(self._config, name, embeds=embeds)
        if retry:
            self._crashes.forgive(wanted.key)
        lease = await self._leased(wanted, keep_alive_s)
        if name is not None and lease.resident.stands_in:
            lease.release()
            raise ModelNotFound(
                f"{wanted.name} is not on this machine.", f"Fetch it with `llm-local pull {wanted.name}`."
            )
        return lease

    async def _leased(self, wanted: WantedModel, keep_alive_s: float | None) -> Lease:
        key, began = wanted.key, self._clock()
        while True:
            self._check_open()
            self._crashes.check(key, wanted.name)
            resident = self._memory.residents.get(key)
            if resident is not None and not resident.memory.alive:
                self._bury(resident)
            elif resident is not None:
                if not self._is_held_back():
                    return self._grant(resident, wanted.name, keep_alive_s, began)
                await self._memory.changed.wait()
                continue
            if key not in self._loading:
                await self._memory.in_thread(check_here, wanted)
                if key in self._memory.residents:
                    continue
            return await self._wait_for(self._begin(wanted), wanted.name, keep_alive_s)

    async def known(self, name: str | None, *, embeds: bool = False) -> WantedModel:
        """What a name means.

        Raises:
            InvalidRequest, ModelNotFound, ModelCorrupt: nothing that is on this machine and could be loaded.
        """
        wanted = wanted_model(self._config, name, embeds=embeds)
        if wanted.key not in self._memory.residents and wanted.key not in self._loading:
            await self._memory.in_thread(check_here, wanted)
        return wanted

    def preload(self) -> None:
        """Begin to load the service's own model, if it is not there."""
        wanted = wanted_model(self._config, None)
        if wanted.key not in self._memory.residents:
            self._begin(wanted).needed = True

    async def unload(self, name: str | None) -> bool:
        """Have a model go as soon as it is idle, in both its kinds; wait for that where it is idle now.

        False when it is not in memory.
        """
        found = False
        for embeds in (False, True):
            resident = self._memory.residents.get(wanted_model(self._config, name, embeds=embeds).key)
            if resident is not None:
                found = True
                resident.keep_alive_s = 0.0
                if not resident.requests:
                    await asyncio.shield(self._memory.drop(resident))
        return found

    def find(self, name: str | None, *, embeds: bool = False) -> Resident | None:
        """The model of that name, if it is in memory."""
        return self._memory.residents.get(wanted_model(self._config, name, embeds=embeds).key)

    def with_loaded(self, known: KnownModel) -> KnownModel:
        """The same, with what it is in memory: as the model that writes, or else as the one that embeds."""
        now = self._clock()
        for embeds in (False, True):
            try:
                resident = self.find(known.name, embeds=embeds)
            except LocalLLMError:  # not all that lies on a disk has a name that may be asked for
                return known
            if resident is not None:
                return dataclasses.replace(known, loaded=resident.facts(now))
        return known

    def residents(self) -> list[Resident]:
        """All models in memory, the last used one first."""
        return sorted(self._memory.residents.values(), key=lambda one: -one.last_used)

    def loading(self) -> list[Loading]:
        """All models on their way into memory."""
        return list(self._loading.values())

    def readiness(self) -> Readiness:
        """Whether the service's own model would answer now."""
        wanted = wanted_model(self._config, None)
        resident, loading = self._memory.residents.get(wanted.key), self._loading.get(wanted.key)
        try:
            self._crashes.check(wanted.key, wanted.name)
        except Busy as error:
            return Readiness(False, str(error))
        return readiness_of(wanted.name, resident, loading, was_loaded=self._own_was_loaded)

    def sweep(self) -> None:
        """Let go of what nobody has used for long enough. A timer calls this; calling it at any time is harmless."""
        now = self._clock()
        for resident in list(self._memory.residents.values()):
            expires = resident.expires()
            if expires is not None and expires <= now:
                self._memory.drop(resident)
        self._arm()

    async def aclose(self) -> None:
        """Let go of everything, in use or not. Harmless when repeated."""
        self._closed = True
        self._memory.wake()
        if self._timer is not None:
            self._timer.cancel()
        tasks = [one.task for one in self.loading() if one.task is not None]
        for loading in self.loading():
            self._give_up(loading)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._memory.aclose()

    def released(self, resident: Resident) -> None:
        """A lease was given back. For leases."""
        resident.requests -= 1
        resident.idle_since = self._clock()
        resident.last_used = next(self._memory.uses)
        if self._memory.residents.get(resident.wanted.key) is resident:
            if not resident.memory.alive:
                self._bury(resident)
            elif not resident.requests and resident.keep_alive_s == 0:
                self._memory.drop(resident)
            else:
                self._arm()
        self._memory.wake()

    def _grant(self, resident: Resident, name: str, keep_alive_s: float | None, began: float) -> Lease:
        if keep_alive_s is not None:
            resident.keep_alive_s = keep_alive_s
        resident.requests += 1
        resident.last_used = next(self._memory.uses)
        resident.names.add(name)
        return Lease(self, resident, name, self._clock() - began)

    def _begin(self, wanted: WantedModel) -> Loading:
        loading = self._loading.get(wanted.key)
        if loading is None:
            loading = self._loading[wanted.key] = Loading(wanted, self._clock())
            loading.task = asyncio.get_running_loop().create_task(self._load(loading))
        return loading

    async def _wait_for(self, loading: Loading, name: str, keep_alive_s: float | None) -> Lease:
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        loading.waiters[future] = (name, keep_alive_s)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().release()  # granted in the very moment in which nobody wanted it any more
            raise
        finally:
            loading.waiters.pop(future, None)
            if not loading.waiters:
                self._give_up(loading)

    def _give_up(self, loading: Loading) -> None:
        """Nobody waits any more. What is being loaded is loaded to its end; what only waits for room is not."""
        if loading.task is not None and loading.waits_for_room_since is not None:
            if self._closed or not loading.needed:
                loading.task.cancel()
                self._loading.pop(loading.wanted.key, None)

    async def _load(self, loading: Loading) -> None:
        """Bring one model into memory, and grant it to all who wait for it."""
        key, began = loading.wanted.key, loading.began
        error: BaseException = _shutting_down()
        resident: Resident | None = None
        try:
            await asyncio.sleep(self._crashes.delay_s(key))
            resident = await self._memory.bring(loading, self._usual_keep_alive(loading.wanted))
            if resident is not None:
                self._tried(loading.wanted, loaded=True)
        except asyncio.CancelledError:
            pass
        except Exception as failure:
            self._tried(loading.wanted, loaded=False)
            error = failure if isinstance(failure, LocalLLMError) else _unexpected(failure)
            logger.info("%s was not loaded: %s", loading.wanted.name, error)
            error = error.with_traceback(None)  # whose frames would keep what was loaded so far
        if self._loading.get(key) is loading:
            del self._loading[key]
        if resident is not None:
            logger.info("%s is loaded: %s", loading.wanted.name, resident.memory.runs_as)
            self._on_loaded(loading.wanted.name, resident.memory.load_s)
        for future, (name, keep_alive_s) in loading.waiters.items():
            if future.done():
                continue
            if resident is None:
                future.set_exception(error)
            else:
                future.set_result(self._grant(resident, name, keep_alive_s, began))
        if resident is not None:
            self._arm()
        self._memory.wake()

    def _tried(self, wanted: WantedModel, *, loaded: bool) -> None:
        if wanted.is_default and not wanted.key.embeds:
            self._own_was_loaded = loaded

    def _usual_keep_alive(self, wanted: WantedModel) -> float:
        if wanted.is_default and not self._config.is_explicit("keep_alive_s"):
            return -1.0
        return self._config.keep_alive_s

    def _is_held_back(self) -> bool:
        """True while somebody has waited so long for room that models in use must become idle first."""
        now = self._clock()
        since = [one.waits_for_room_since for one in self._loading.values()]
        return any(when is not None and now - when > PATIENCE_S for when in since)

    def _bury(self, resident: Resident) -> None:
        """Its engine has died: those who use it have heard of that, and the next one gets a new one."""
        logger.error("the engine of %s has died", resident.wanted.name)
        self._crashes.record(resident.wanted.key)
        self._memory.drop(resident)
        quarantined = self._crashes.is_quarantined(resident.wanted.key)
        if resident.wanted.is_default and not self._closed and not quarantined:
            self._begin(resident.wanted).needed = True

    def _arm(self) -> None:
        """One timer, for the model that goes first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ends = [when for one in self._memory.residents.values() if (when := one.expires()) is not None]
        if ends and not self._closed:
            wait_s = max(0.0, min(ends) - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self.sweep)

    def _check_open(self) -> None:
        if self._closed:
            raise _shutting_down()


def _shutting_down() -> LocalLLMError:
    return EngineError("The server is shutting down.", "Try again once it runs.", kind="shutting_down")


def _unexpected(error: Exception) -> LocalLLMError:
    found = EngineError(f"The model could not be loaded: {type(error).__name__}: {error}")
    found.__cause__ = error.with_traceback(None)
    return found
