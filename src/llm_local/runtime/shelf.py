"""The models on this machine: what there is, and bringing, naming and removing them. All of it in threads.

Whether a caller may is not asked here. Names go the way that names of requests go, so none of them is a folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llm_local.config import Config
from llm_local.errors import Busy, HubUnavailable, LocalLLMError, ModelNotFound, UnsupportedTask
from llm_local.events import Progress
from llm_local.runtime.answers import Capability, KnownModel, ShownModel
from llm_local.runtime.pool import ModelPool
from llm_local.runtime.wanted import wanted_model
from llm_local.store.library import StoredModel, files_of, find_model, list_models, total_bytes
from llm_local.store.naming import copy_model
from llm_local.store.removal import Removed, remove_models

if TYPE_CHECKING:
    from llm_local.loaders.card import ModelCard

__all__ = ["Shelf"]

THREADS: Final = 4


class Shelf:
    """What `service` tells and does about the store. Use it from one event loop."""

    def __init__(self, config: Config, pool: ModelPool) -> None:
        self._config = config
        self._pool = pool
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="shelf")
        self._pulls: dict[tuple[str, str | None], _Pull] = {}
        self._cards: dict[str, tuple[tuple[object, ...], ModelCard | None]] = {}

    async def models(self) -> list[KnownModel]:
        """Every model under every name; incomplete and damaged ones say so."""
        return [self._with_loaded(one.known) for one in await self._in_thread(self._all)]

    async def show(self, name: str | None) -> ShownModel:
        """All that its files tell of a model.

        Raises:
            ModelNotFound: it is not here.
        """
        wanted = wanted_model(self._config, name)
        found = await self._in_thread(lambda: self._shown(find_model(wanted.name)))
        return ShownModel(self._with_loaded(found.known), found.card)

    async def is_for_embeddings(self, name: str | None) -> bool:
        """True of a model that is made for embeddings; False also where its files do not tell."""
        try:
            card = (await self.show(name)).card
        except ModelNotFound:
            if name is not None:
                raise
            return False  # the service's own has not been fetched yet
        return card is not None and card.capabilities.embedding

    async def copy(self, source: str, name: str) -> KnownModel:
        """Give a model a second name. Raises what `store.naming.copy_model` does."""
        wanted_model(self._config, source)
        found = await self._in_thread(lambda: self._shown(copy_model(source, name)))
        return self._with_loaded(found.known)

    async def delete(self, name: str) -> tuple[Removed, ...]:
        """Remove a model from the disk, and from memory where nobody uses it.

        Raises:
            Busy: it is in use (kind `model_in_use`). All else that `store.removal.remove_models` raises.
        """
        wanted_model(self._config, name)
        for embeds in (False, True):
            resident = self._pool.find(name, embeds=embeds)
            if resident is not None and resident.requests:
                raise Busy(
                    f"{name} is in use by {resident.requests} requests.",
                    "Try again when they are done.",
                    kind="model_in_use",
                )
        await self._pool.unload(name)
        removed: tuple[Removed, ...] = await self._in_thread(lambda: tuple(remove_models([name])))
        return removed

    async def pull(self, name: str) -> AsyncIterator[Progress]:
        """Bring a model from the hub; who asks for one that is on its way already follows that download.

        The download ends when nobody follows it any more; the next one goes on where it stopped.

        Raises:
            LocalLLMError: all that `store.pulling.pull` raises.
        """
        key = await self._in_thread(self._hub_name, name)
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = _Pull()
            pull.task = asyncio.get_running_loop().create_task(self._run(key, pull))
        pull.followers += 1
        last: Progress | None = None
        try:
            while True:
                changed = pull.changed
                if pull.latest is not None and pull.latest is not last:
                    last = pull.latest
                    yield last
                elif pull.outcome is None:
                    await changed.wait()
                elif isinstance(pull.outcome, LocalLLMError):
                    raise pull.outcome
                else:
                    return
        finally:
            pull.followers -= 1

    async def aclose(self) -> None:
        """Stop all downloads; what has come of them stays."""
        for pull in self._pulls.values():
            pull.followers = 0
        await asyncio.gather(*(one.task for one in self._pulls.values() if one.task), return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def _run(self, key: tuple[str, str | None], pull: _Pull) -> None:
        loop = asyncio.get_running_loop()

        def report(progress: Progress) -> None:
            if pull.followers <= 0 and pull.latest is not None:
                raise _Unfollowed
            loop.call_soon_threadsafe(pull.tell, progress)

        outcome: Path | LocalLLMError | None = None
        try:
            while outcome is None:
                try:
                    outcome = await self._in_thread(_pull, *key, report)
                except LocalLLMError as error:
                    outcome = error.with_traceback(None)
                except _Unfollowed:
                    if pull.followers <= 0:  # else somebody came just then
                        outcome = HubUnavailable(
                            f"The download of {key[0]} was stopped.", "Ask for it again."
                        )
        finally:
            del self._pulls[key]
        pull.end(outcome)

    def _hub_name(self, name: str) -> tuple[str, str | None]:
        # Late: the network is loaded only by a service that is asked to fetch something.
        from llm_local.store.pulling import hub_source
        from llm_local.store.wanted import parse_wanted

        if self._config.offline:
            raise HubUnavailable(
                f"The model hub is switched off (offline, by {self._config.origin('offline')}).",
                "Go online, or use a model on this disk.",
            )
        wanted = parse_wanted(name, hub_source().endpoint)
        if wanted.gguf:
            raise UnsupportedTask(
                f"{wanted.text} is a GGUF file, and these cannot be run yet.",
                "Choose a model with safetensors weights.",
                param="model",
            )
        return wanted.name.ref, wanted.name.revision

    def _all(self) -> list[ShownModel]:
        models = list_models()
        own = self._config.model_id
        if all(one.name != own for one in models):
            with suppress(LocalLLMError):  # else it is fetched when it is first asked for
                models.append(find_model(own))
        return [self._shown(one) for one in models]

    def _shown(self, model: StoredModel) -> ShownModel:
        try:
            files = files_of(model)
        except OSError:
            files = ()
        seen = tuple((file.name, file.size, file.modified_s) for file in files)
        known, card = self._cards.get(model.name, (None, None))
        if known != seen:
            card = _card(model)
            self._cards[model.name] = (seen, card)
        fault = model.fault or (card.faults[0] if card is not None and card.faults else "")
        return ShownModel(
            KnownModel(
                name=model.name,
                kind=model.kind,
                state="corrupt" if model.state == "complete" and fault else model.state,
                num_bytes=total_bytes(files),
                modified=max((file.modified_s for file in files), default=0.0),
                architecture="" if card is None else card.architecture,
                context_length=None if card is None else card.shape.context_length,
                capabilities=frozenset() if card is None else _capabilities(card),
                num_parameters=None if card is None else card.num_parameters,
                dtype="" if card is None else max(card.dtypes, key=lambda one: card.dtypes[one], default=""),
                commit=model.commit,
                fault=fault,
            ),
            card,
        )

    def _with_loaded(self, known: KnownModel) -> KnownModel:
        return self._pool.with_loaded(known)

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


class _Unfollowed(Exception):
    """Nobody wants a download any more."""


@dataclass(eq=False)
class _Pull:
    """A download that several follow. `outcome` is set when it is over."""

    followers: int = 0
    latest: Progress | None = None
    outcome: Path | LocalLLMError | None = None
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.changed = asyncio.Event()

    def tell(self, progress: Progress) -> None:
        self.latest = progress
        self._wake()

    def end(self, outcome: Path | LocalLLMError) -> None:
        self.outcome = outcome
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


def _pull(ref: str, revision: str | None, report: Callable[[Progress], None]) -> Path:
    # Late, as above.
    from llm_local.store.pulling import pull

    return pull(ref, revision, on_progress=report)


def _card(model: StoredModel) -> ModelCard | None:
    # Late: it reads formats of tool calls, which nothing else here needs.
    from llm_local.loaders.card import gguf_card, read_card

    if model.state != "complete":
        return None
    try:
        if model.gguf:
            return gguf_card([model.folder / name for name in model.gguf])
        return read_card(model.folder)
    except LocalLLMError:
        return None


def _capabilities(card: ModelCard) -> frozenset[Capability]:
    able = card.capabilities
    if card.format == "gguf":
        return frozenset()
    found: dict[Capability, bool] = {
        "chat": able.chat,
        "completion": not able.embedding,
        "tools": able.tools,
        "thinking": bool(able.thinking),
        "embedding": True,  # of models that write, by the mean over their hidden states
    }
    return frozenset(name for name, is_able in found.items() if is_able)
