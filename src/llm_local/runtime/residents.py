"""What lies in memory: a model that writes, with its engine's thread, or one that embeds. And how it gets there."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from llm_local.errors import InsufficientMemory, LocalLLMError
from llm_local.events import Progress
from llm_local.runtime.opening import FoundModel, OpenModel, find_models, open_found
from llm_local.runtime.wanted import WantedModel
from llm_local.runtime.worker import EngineWorker, ThreadDriver
from llm_local.specs import ModelInfo
from llm_local.store.summary import files_under

if TYPE_CHECKING:
    from llm_local.embedder import TextEmbedder
    from llm_local.engine.protocol import Engine

__all__ = ["EmbeddingModel", "InMemory", "ModelOpener", "Opener", "TextModel"]

OnProgress = Callable[[Progress], None]

# A chunk of a large model on a slow machine takes seconds.
CLOSE_WAIT_S: Final = 60.0
MEAN_POOLING: Final = (
    "{ref} does not say how texts become vectors: each is the mean over the hidden states of all its tokens, "
    "scaled to length 1."
)


class InMemory(Protocol):
    """A loaded model, of either kind."""

    @property
    def info(self) -> ModelInfo:
        """Its facts."""

    @property
    def load_s(self) -> float:
        """Seconds it took to load."""

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that people should see."""

    @property
    def runs_as(self) -> str:
        """What computes it, for people."""

    @property
    def alive(self) -> bool:
        """False when its engine has died."""

    def kv_bytes(self) -> tuple[int, int]:
        """Memory of keys and values: in use, and what it may grow to."""

    def close(self) -> None:
        """End its thread. Called once, in a thread that may wait."""


@dataclass(frozen=True, slots=True, eq=False)
class TextModel:
    """A model that writes. `engine` is only looked at here: it belongs to the worker's thread.

    `digest` stands for all that decides what it computes.
    """

    model: OpenModel
    worker: EngineWorker
    engine: Engine
    digest: str = ""

    @property
    def info(self) -> ModelInfo:
        """Its facts."""
        return self.model.info

    @property
    def load_s(self) -> float:
        """Seconds it took to load."""
        return self.model.load_s

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that people should see."""
        return tuple(filter(None, self.model.notices))

    @property
    def runs_as(self) -> str:
        """What computes it, for people."""
        return self.model.generator.runs_as

    @property
    def alive(self) -> bool:
        """False when its engine has died."""
        return self.worker.alive

    def stats(self) -> dict[str, int]:
        """The engine's counts. They are plain numbers, so a look from another thread is at most a step late."""
        return dict(self.engine.stats())

    def kv_bytes(self) -> tuple[int, int]:
        """Memory of keys and values: in use, and what it may grow to."""
        counts = self.stats()
        used = counts["kv_used_bytes"]
        return used, max(used, counts["kv_limit_bytes"])

    def close(self) -> None:
        """End the engine's thread; what still runs fails with an EngineError."""
        self.worker.close(CLOSE_WAIT_S)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingModel:
    """A model that embeds. Whoever uses it holds `lock`: it computes for one thread at a time."""

    embedder: TextEmbedder
    notices: tuple[str, ...]
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    runs_as: str = "transformers"
    alive: bool = True

    @property
    def info(self) -> ModelInfo:
        """Its facts."""
        return self.embedder.info

    @property
    def load_s(self) -> float:
        """Seconds it took to load."""
        return self.embedder.load_s

    def kv_bytes(self) -> tuple[int, int]:
        """It keeps no keys and values."""
        return 0, 0

    def close(self) -> None:
        """Wait until nobody computes any more, for a while at least."""
        if self.lock.acquire(timeout=CLOSE_WAIT_S):
            self.lock.release()


class Opener(Protocol):
    """How models get into memory. All of it is called in threads that may wait."""

    def find(self, wanted: WantedModel, on_progress: OnProgress) -> FoundModel:
        """The model's files."""

    def need(
        self, wanted: WantedModel, found: FoundModel, most_bytes: Callable[[str], int]
    ) -> tuple[str, int]:
        """The device it goes to, and the memory it takes there; `most_bytes` is what a device could have.

        Raises:
            InsufficientMemory: more than that.
        """

    def open(
        self, wanted: WantedModel, found: FoundModel, on_progress: OnProgress, reserved_bytes: int
    ) -> InMemory:
        """Load it."""

    def free_bytes(self, device: str) -> int:
        """What is free on a device now."""

    def release(self) -> None:
        """Models have gone: give their memory back to the system."""


class ModelOpener:
    """The real one."""

    def find(self, wanted: WantedModel, on_progress: OnProgress) -> FoundModel:
        """The model's files; only the service's own model may be fetched for that."""
        found = find_models(wanted.config, on_progress)
        return dataclasses.replace(found, draft=None) if wanted.key.embeds else found

    def need(
        self, wanted: WantedModel, found: FoundModel, most_bytes: Callable[[str], int]
    ) -> tuple[str, int]:
        """By the headers of its weights, as the loader will count."""
        # Late: torch takes a second to import.
        from llm_local.loaders.first_import import first_import

        with first_import("torch"):
            from llm_local.loaders.devices import place, resolve_device
            from llm_local.loaders.safetensors import read_weights

        total, device = 0, resolve_device(found.model.spec.device)
        for one in (found.model, found.draft):
            if one is None:
                continue
            spec, folder = one.spec, one.path
            if wanted.key.embeds:
                # Late: it reads what only embedding models have.
                from llm_local.embedding.layout import read_layout

                spec, folder = dataclasses.replace(spec, quantization="none"), read_layout(folder).folder
            try:
                weights = read_weights(folder)
            except InsufficientMemory:
                raise
            except LocalLLMError:
                continue  # damaged, or for a plug-in: the loader says more
            placement = place(spec, weights, _without(most_bytes, total))
            device, total = placement.device, total + placement.need_bytes
        return device, total

    def open(
        self, wanted: WantedModel, found: FoundModel, on_progress: OnProgress, reserved_bytes: int
    ) -> InMemory:
        """Load it, with a thread for its engine where it has one."""
        if wanted.key.embeds:
            return _open_embedder(found, on_progress)
        started: list[tuple[EngineWorker, Engine]] = []

        def driver(engine: Engine) -> ThreadDriver:
            started.append((EngineWorker(engine, name=f"engine of {wanted.name}"), engine))
            return ThreadDriver(started[0][0])

        try:
            model = open_found(
                wanted.config, found, on_progress, driver=driver, reserved_bytes=reserved_bytes
            )
        except BaseException:
            for worker, _ in started:
                worker.close()
            raise
        return TextModel(model, *started[0], digest=_digest(model, found))

    def free_bytes(self, device: str) -> int:
        """What is free on a device now."""
        # Late, as above.
        from llm_local.loaders.devices import available_bytes

        return available_bytes(device)

    def release(self) -> None:
        """Models have gone: give their memory back to the system."""
        # Late, as above.
        from llm_local.loaders.devices import release_memory

        release_memory()


def _without(most_bytes: Callable[[str], int], before: int) -> Callable[[str], int]:
    return lambda device: most_bytes(device) - before


def _digest(model: OpenModel, found: FoundModel) -> str:
    """Of its files by name, size and time of change, and of all else that decides what is computed."""
    parts: list[Any] = [model.info, model.generator.runs_as, found.model.spec]
    for one in (found.model, found.draft):
        with suppress(OSError):
            parts += [] if one is None else [(f.name, f.size, f.modified_s) for f in files_under(one.path)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _open_embedder(found: FoundModel, on_progress: OnProgress) -> EmbeddingModel:
    # Late: torch and transformers take seconds to import.
    from llm_local.loaders.first_import import first_import

    with first_import("torch"):
        from llm_local.embedder import TextEmbedder
        from llm_local.embedding.layout import read_layout

    notices: list[Any] = []
    layout = read_layout(found.model.path)
    undeclared = layout.pooling is None
    # of a decoder that was never made for it, the mean over all tokens is the better vector than the last one alone
    embedder = TextEmbedder.load(
        found.model,
        pooling="mean" if undeclared else None,
        normalize=True if undeclared else None,
        on_progress=on_progress,
    )
    if undeclared:
        notices.append(MEAN_POOLING.format(ref=embedder.info.ref))
    return EmbeddingModel(embedder, (*filter(None, embedder.notices), *notices))
