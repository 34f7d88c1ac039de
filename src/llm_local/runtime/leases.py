"""A place in the pool for one model, and the right to use it for a while."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass, field
from typing import Protocol

from llm_local.errors import EngineError, UnsupportedTask
from llm_local.events import Progress
from llm_local.runtime.answers import Loaded
from llm_local.runtime.opening import OpenModel
from llm_local.runtime.residents import EmbeddingModel, InMemory, TextModel
from llm_local.runtime.room import Held
from llm_local.runtime.wanted import WantedModel
from llm_local.store.names import STARTER

__all__ = ["Lease", "Loading", "Resident"]


class _Pool(Protocol):
    def released(self, resident: Resident) -> None:
        """A lease was given back."""


@dataclass(eq=False)
class Resident:
    """A model in memory, and who uses it. `last_used` counts, so that two are never the same."""

    wanted: WantedModel
    loaded: InMemory | None
    device: str
    keep_alive_s: float
    requests: int = 0
    idle_since: float = 0.0
    last_used: int = 0
    names: set[str] = field(default_factory=set)

    @property
    def memory(self) -> InMemory:
        """What lies there.

        Raises:
            EngineError: nothing any more; it was taken away from those who used it.
        """
        if self.loaded is None:
            raise EngineError(
                f"{self.wanted.name} is not in memory any more.", "Try again.", kind="worker_died"
            )
        return self.loaded

    @property
    def stands_in(self) -> bool:
        """True of the starter where it answers for the service's own model, which is not on this machine."""
        return self.loaded is not None and self.loaded.info.ref == STARTER != self.wanted.key.ref

    def told_name(self, asked: str) -> str:
        """The name that answers tell: the one it was asked for by, but of a model that stands in its own."""
        return STARTER if self.stands_in else asked

    def expires(self) -> float | None:
        """When it goes, by the pool's clock; None while it is in use or kept."""
        if self.requests or self.keep_alive_s < 0:
            return None
        return self.idle_since + self.keep_alive_s

    def held(self) -> Held:
        """What it takes of the memory."""
        used, limit = self.memory.kv_bytes()
        return Held(
            self.wanted.key,
            self.device,
            self.memory.info.weight_bytes + used,
            limit - used,
            self.requests > 0,
            self.last_used,
        )

    def facts(self, now: float) -> Loaded:
        """What to tell about it."""
        used, limit = self.memory.kv_bytes()
        expires = None if self.keep_alive_s < 0 else self.keep_alive_s
        if expires is not None and not self.requests:
            expires = max(0.0, self.idle_since + expires - now)
        return Loaded(
            name=self.wanted.name,
            info=self.memory.info,
            embeds=self.wanted.key.embeds,
            requests=self.requests,
            expires_in_s=expires,
            load_s=self.memory.load_s,
            weight_bytes=self.memory.info.weight_bytes,
            kv_bytes=used,
            kv_limit_bytes=limit,
            runs_as=self.memory.runs_as,
            notices=self.memory.notices,
        )


class Loading:
    """A model on its way into memory, and who waits for it. `progress` is how far it is.

    One that nobody waits for is given up, unless it is `needed` anyway or has come too far.
    """

    def __init__(self, wanted: WantedModel, began: float) -> None:
        self.wanted = wanted
        self.began = began
        self.needed = False
        self.progress = Progress("loading", 0, None, wanted.name)
        self.waiters: dict[asyncio.Future[Lease], tuple[str, float | None]] = {}
        self.waits_for_room_since: float | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def is_wanted(self) -> bool:
        """True while there is a reason to load it."""
        return self.needed or bool(self.waiters)

    def report(self, progress: Progress) -> None:
        """Called by the thread that loads."""
        self.progress = progress


class Lease:
    """As long as it is held, the model stays. One that is forgotten is given back when it is collected.

    `name` is what answers call the model; `load_s` how long this one waited for it to be in memory.
    """

    def __init__(self, pool: _Pool, resident: Resident, name: str, load_s: float = 0.0) -> None:
        """`resident.requests` has been counted up by whoever makes this."""
        self.name = resident.told_name(name)
        self.load_s = load_s
        self._resident: Resident | None = resident
        self._pool = pool
        loop = asyncio.get_running_loop()
        self._forget = weakref.finalize(self, _forget, loop, pool, resident)
        self._forget.atexit = False

    @property
    def resident(self) -> Resident:
        """What is leased."""
        if self._resident is None:
            raise EngineError("The model was given back already.")
        return self._resident

    @property
    def text(self) -> TextModel:
        """The model as one that writes.

        Raises:
            UnsupportedTask: it is not.
        """
        memory = self.resident.memory
        if not isinstance(memory, TextModel):
            raise UnsupportedTask(f"{self.name} does not write text.", param="model")
        return memory

    @property
    def embedding(self) -> EmbeddingModel:
        """The model as one that embeds.

        Raises:
            UnsupportedTask: it is not.
        """
        memory = self.resident.memory
        if not isinstance(memory, EmbeddingModel):
            raise UnsupportedTask(f"{self.name} does not embed.", param="model")
        return memory

    @property
    def notices(self) -> tuple[str, ...]:
        """What everybody who reads an answer should know: that another model stands in."""
        return self.resident.memory.notices if self.resident.stands_in else ()

    @property
    def model(self) -> OpenModel:
        """What writes. Raises what `text` does."""
        return self.text.model

    def again(self) -> Lease:
        """One more, at once: whoever has one keeps the model in memory."""
        self.resident.requests += 1
        return Lease(self._pool, self.resident, self.name)

    def release(self) -> None:
        """Give it back. Harmless when repeated."""
        if self._forget.detach() is not None and self._resident is not None:
            resident, self._resident = self._resident, None
            self._pool.released(resident)


def _forget(loop: asyncio.AbstractEventLoop, pool: _Pool, resident: Resident) -> None:
    """A collector may come at any moment and in any thread, so nothing is done here."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(pool.released, resident)
