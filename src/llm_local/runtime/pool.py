"""The models in memory: loaded when they are first asked for, shared by all who use them, gone when nobody does.

All bookkeeping is done on one event loop; only loading and closing run in threads.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from llm_local.config import Config
from llm_local.events import Progress
from llm_local.runtime.answers import Loaded
from llm_local.runtime.opening import OpenModel, open_model
from llm_local.runtime.worker import EngineWorker, ThreadDriver

__all__ = ["Lease", "ModelPool", "OpenInPool", "Resident"]


class OpenInPool(Protocol):
    """How a model is opened, called in a thread: `runtime.opening.open_model`, or a test's own."""

    def __call__(
        self, config: Config, on_progress: Callable[[Progress], None], *, driver: Callable[..., ThreadDriver]
    ) -> OpenModel:
        """The open model, its engine in the thread that `driver` starts."""


@dataclass(eq=False)
class Resident:
    """A model in memory, and the thread of its engine."""

    name: str
    model: OpenModel
    worker: EngineWorker
    keep_alive_s: float
    requests: int = 0
    idle_since: float = 0.0
    config: Config = field(default_factory=Config)

    def facts(self, now: float) -> Loaded:
        """What to tell about it."""
        expires = None if self.keep_alive_s < 0 else max(0.0, self.idle_since + self.keep_alive_s - now)
        info = self.model.info
        return Loaded(
            self.name,
            info,
            False,
            self.requests,
            expires,
            self.model.load_s,
            info.weight_bytes,
            runs_as=self.model.generator.runs_as,
            notices=self.model.notices,
        )


class Lease:
    """The right to use a model: as long as one is held, the model stays. `release` is harmless when repeated."""

    def __init__(self, pool: ModelPool, resident: Resident) -> None:
        self.resident = resident
        self._pool: ModelPool | None = pool
        resident.requests += 1

    @property
    def model(self) -> OpenModel:
        """The model itself."""
        return self.resident.model

    def release(self) -> None:
        """Give it back."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.released(self.resident)


class ModelPool:
    """Hands out leases of models by name."""

    def __init__(
        self,
        config: Config,
        *,
        open_model: OpenInPool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._open: OpenInPool = open_model or _open
        self._clock = clock
        self._residents: dict[str, Resident] = {}
        self._lock = asyncio.Lock()

    async def lease(self, name: str | None, keep_alive_s: float | None = None) -> Lease:
        """The model of that name, loaded where it is not."""
        key = name or self._config.model_id
        async with self._lock:
            resident = self._residents.get(key)
            if resident is None:
                resident = await asyncio.to_thread(self._load, key, name is not None)
                self._residents[key] = resident
        if keep_alive_s is not None:
            resident.keep_alive_s = keep_alive_s
        return Lease(self, resident)

    def released(self, resident: Resident) -> None:
        """Called by a lease."""
        resident.requests -= 1
        resident.idle_since = self._clock()

    async def aclose(self) -> None:
        """Close all models."""
        for resident in list(self._residents.values()):
            await asyncio.to_thread(resident.worker.close)
        self._residents.clear()

    def _load(self, key: str, explicit: bool) -> Resident:
        config = self._config
        if key != config.model_id:
            config = dataclasses.replace(config, model_id=key)
        workers: list[EngineWorker] = []

        def driver(engine: object) -> ThreadDriver:
            workers.append(EngineWorker(engine, name=f"engine {key}"))  # type: ignore[arg-type]
            return ThreadDriver(workers[0])

        model = self._open(config, lambda progress: None, driver=driver)
        return Resident(key, model, workers[0], 300.0)


def _open(
    config: Config, on_progress: Callable[[Progress], None], *, driver: Callable[..., ThreadDriver]
) -> OpenModel:
    return open_model(config, on_progress, driver=driver)
