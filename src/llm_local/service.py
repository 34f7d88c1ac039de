"""The service door: everything the front-ends of many callers need, and nothing of HTTP.

    service = Service(load_config())
    reply = await service.begin(Work(Caller("local"), messages=(Message("user", "Hi"),)))
    async for event in reply: ...

One event loop owns a service; models compute in threads of their own, so the loop never waits for one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from llm_local.config import Config
from llm_local.errors import Busy
from llm_local.events import Progress
from llm_local.generation.choices import Decision, DecisionOptions
from llm_local.messages import Message
from llm_local.runtime.answers import (
    EmbeddedTexts,
    KnownModel,
    Loaded,
    Ranked,
    Ranking,
    Readiness,
    Rendered,
    ScoredText,
    ServiceStats,
    ShownModel,
)
from llm_local.runtime.judging import Judge
from llm_local.runtime.leases import Resident
from llm_local.runtime.metrics import Metrics, ModelGauges, ServiceGauges
from llm_local.runtime.pool import ModelPool
from llm_local.runtime.reception import Demand, Reception
from llm_local.runtime.reply import ServedReply
from llm_local.runtime.residents import Opener
from llm_local.runtime.response_cache import open_response_cache
from llm_local.runtime.shelf import Shelf
from llm_local.runtime.vectors import Embedder, EmbedRequest
from llm_local.runtime.work import Caller, Work
from llm_local.runtime.writing import Writer
from llm_local.store.removal import Removed

__all__ = [
    "Caller",
    "EmbedRequest",
    "EmbeddedTexts",
    "KnownModel",
    "Loaded",
    "Ranked",
    "Ranking",
    "Readiness",
    "Rendered",
    "ScoredText",
    "ServedReply",
    "Service",
    "ServiceStats",
    "ShownModel",
    "Work",
]

Answer = TypeVar("Answer")

# Tokenizing and compiling let go of the interpreter's lock for most of their time; the engine needs cores too.
PREPARING_THREADS: Final = 4
EMBEDDING_THREADS: Final = 4


class Service:
    """All that callers can ask for. Use it from one event loop; `aclose` ends every thread it started.

    `opener` is how models get into memory; tests bring their own. Whether a caller may do something is not asked here.
    """

    def __init__(
        self,
        config: Config,
        *,
        opener: Opener | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.metrics = Metrics(self._gauges)
        self._clock = clock
        self._cache = open_response_cache(config)
        self._pool = ModelPool(config, opener=opener, clock=clock, on_loaded=self.metrics.model_loaded)
        self._reception = Reception(config, self._pool, self.metrics, clock)
        self._preparing = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="prepare")
        self._embedding = ThreadPoolExecutor(EMBEDDING_THREADS, thread_name_prefix="embed")
        self._writer = Writer(config, self._reception, self._preparing, self.metrics, self._cache)
        self._embedder = Embedder(self._reception, self._embedding)
        self._judge = Judge(self._reception, self._embedder, self._preparing)
        self._shelf = Shelf(config, self._pool)
        self._draining = False

    def check_room(self, caller: Caller) -> None:
        """Refuse a caller for whom `begin` would have no place, whichever model in memory they asked for.

        It costs next to nothing: meant for before a request is read.

        Raises:
            Busy: all lines are full (kind `server_busy`).
        """
        self._reception.check_room(caller.owner)

    async def begin(self, work: Work) -> ServedReply:
        """Make a reply ready: admitted, its model loaded, its prompt rendered, its constraint compiled.

        Raises:
            Busy: the line is full (kind `server_busy`), which is known before anything else is done.
            LocalLLMError: all else that can be wrong with the request; the reply itself only fails in computing.
        """
        return await self._writer.begin(work)

    async def begin_many(self, work: Work, n: int) -> list[ServedReply]:
        """`n` replies to one prompt, which is read once; their seeds follow from the first one's.

        Read them in any order, or side by side. Raises what `begin` does, and then none of them is begun.
        """
        return await self._writer.begin_many(work, n)

    async def render(self, work: Work) -> Rendered:
        """Exactly what the model would see, without computing anything. Raises what `begin` does."""
        return await self._writer.render(work)

    async def embed(
        self,
        caller: Caller,
        model: str | None,
        inputs: Sequence[str | Sequence[int]],
        *,
        dimensions: int | None = None,
        truncate: bool = False,
        keep_alive_s: float | None = None,
    ) -> EmbeddedTexts:
        """A vector for each text, or for each list of token ids. Any model embeds; `notices` say how, where its
        repository does not.

        Raises:
            LocalLLMError: there is no such model, or a text is empty or too long; all that `begin` raises.
        """
        demand = Demand(caller, model, embeds=True, keep_alive_s=keep_alive_s)
        return await self._embedder.embed(demand, EmbedRequest(inputs, dimensions, truncate))

    async def embed_with(
        self, caller: Caller, model: str | None, request: EmbedRequest, *, keep_alive_s: float | None = None
    ) -> EmbeddedTexts:
        """The same with everything that can be said about it."""
        demand = Demand(caller, model, embeds=True, keep_alive_s=keep_alive_s)
        return await self._embedder.embed(demand, request)

    async def decide(
        self,
        caller: Caller,
        model: str | None,
        question: Sequence[Message] | str,
        choices: Sequence[str],
        options: DecisionOptions | None = None,
    ) -> Decision:
        """How likely each of some answers to a conversation is, or, to a text, each of some texts to come next."""
        return await self._judge.decide(
            Demand(caller, model), question, choices, options or DecisionOptions()
        )

    async def score(
        self,
        caller: Caller,
        model: str | None,
        text: str | Sequence[int],
        *,
        given: str = "",
        top_logprobs: int = 0,
    ) -> ScoredText:
        """How likely a text, or its token ids, is after `given`, token by token."""
        return await self._judge.score(Demand(caller, model), text, given, top_logprobs)

    async def rerank(
        self,
        caller: Caller,
        model: str | None,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
    ) -> Ranking:
        """Documents by how well they fit a query, the best first.

        A model made for embeddings compares vectors; one that writes is asked about each document, and the score is the
        probability that it says yes.
        """
        embeds = await self._shelf.is_for_embeddings(None if model is None else self.told_name(model))
        return await self._judge.rerank(Demand(caller, model, embeds=embeds), query, documents, top_n)

    def told_name(self, model: str | None) -> str:
        """The name that answers tell of a model in memory: the one it is asked for by, or what stands in for it."""
        resident = self._pool.find(model)
        asked = model or self.config.model_id
        return asked if resident is None else resident.told_name(asked)

    async def tokenize(
        self, caller: Caller, model: str | None, text: str, *, special: bool = True
    ) -> tuple[int, ...]:
        """Token ids of a text; with `special`, what the tokenizer puts around every text too."""
        async with self._reception.glance(Demand(caller, model)) as lease:
            return await self._in_thread(lambda: lease.model.generator.tokens.encode(text, special=special))

    async def detokenize(
        self, caller: Caller, model: str | None, token_ids: Sequence[int], *, special: bool = True
    ) -> str:
        """The text that token ids stand for; without `special`, control tokens are left out."""
        async with self._reception.glance(Demand(caller, model)) as lease:
            return await self._in_thread(
                lambda: lease.model.generator.tokens.decode(token_ids, special=special)
            )

    async def load(self, model: str | None, keep_alive_s: float | None = None) -> Loaded:
        """Bring a model into memory, also one that died too often, and say how long it stays."""
        lease = await self._pool.lease(model, keep_alive_s, retry=True)
        resident = lease.resident
        lease.release()
        return resident.facts(self._clock())

    async def unload(self, model: str | None) -> bool:
        """Have a model go as soon as nobody uses it; False when it is not in memory."""
        return await self._pool.unload(model)

    def loaded(self) -> list[Loaded]:
        """What is in memory, the last used one first."""
        now = self._clock()
        return [one.facts(now) for one in self._pool.residents()]

    async def models(self) -> list[KnownModel]:
        """Every model on this machine under every name; incomplete and damaged ones say so."""
        return await self._shelf.models()

    async def show(self, model: str | None) -> ShownModel:
        """All that a model's files tell. Raises ModelNotFound when it is not here."""
        return await self._shelf.show(model)

    def pull(self, name: str) -> AsyncIterator[Progress]:
        """Bring a model from the hub; who asks for one that is on its way already follows that download.

        It ends when nobody follows it any more. Failures are raised by the iterator.
        """
        return self._shelf.pull(name)

    async def copy(self, source: str, name: str) -> KnownModel:
        """Give a model on this machine a second name."""
        return await self._shelf.copy(source, name)

    async def delete(self, name: str) -> tuple[Removed, ...]:
        """Remove a model from the disk. Raises Busy (kind `model_in_use`) while it is in use."""
        return await self._shelf.delete(name)

    def start(self) -> None:
        """Begin to load the default model. Call it once, on the event loop."""
        self._pool.preload()

    def readiness(self) -> Readiness:
        """Whether a request to the default model would be served now."""
        if self._draining:
            return Readiness(False, "The server is shutting down.")
        return self._pool.readiness()

    def stats(self) -> ServiceStats:
        """One look at everything."""
        return ServiceStats(
            self._reception.statistics(),
            tuple(self.loaded()),
            tuple(one.wanted.name for one in self._pool.loading()),
            None if self._cache is None else self._cache.statistics(),
            self._draining,
        )

    def metrics_text(self) -> str:
        """Counters and histograms, as Prometheus reads them."""
        return self.metrics.text()

    async def drain(self, timeout_s: float) -> bool:
        """Take no new requests, refuse those in line, and wait for the others; False when some are not done by then."""
        self._draining = True
        self._reception.close(
            Busy("The server is shutting down.", "Try again in a few seconds.", kind="shutting_down")
        )
        try:
            async with asyncio.timeout(timeout_s):
                await self._reception.idle()
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        """End everything, running requests too. Harmless when repeated."""
        await self.drain(0)
        await self._shelf.aclose()
        await self._pool.aclose()
        await self._writer.aclose()
        for threads in (self._preparing, self._embedding):
            threads.shutdown(wait=False, cancel_futures=True)
        if self._cache is not None:
            await self._cache.aclose()

    def _gauges(self) -> ServiceGauges:
        kept = None if self._cache is None else self._cache.statistics()
        return ServiceGauges(
            tuple(self._gauges_of(one) for one in self._pool.residents()),
            (kept.num_bytes or 0) if kept else 0,
            (kept.entries or 0) if kept else 0,
        )

    def _gauges_of(self, resident: Resident) -> ModelGauges:
        line, now = self._reception.line_of(resident.wanted.key), resident.facts(self._clock())
        return ModelGauges(
            resident.wanted.name,
            0 if line is None else line.waiting,
            0 if line is None else line.running,
            self.config.max_concurrent_requests,
            now.weight_bytes,
            now.kv_bytes,
        )

    async def _in_thread(self, function: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._preparing, function)
