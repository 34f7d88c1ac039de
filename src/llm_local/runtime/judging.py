"""What a model thinks of texts: which of some choices, how likely a text, which document. Nothing is sampled.

The sequences run in the engine's thread beside all others; a caller that goes away ends its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from llm_local.engine.protocol import EngineStep, PrefillStep, TokenRequest, TokenStep
from llm_local.errors import EngineError, LocalLLMError
from llm_local.events import TokenLogprob
from llm_local.generation.choices import Decision, DecisionOptions
from llm_local.messages import Message
from llm_local.options import Bound
from llm_local.runtime.answers import Ranked, Ranking, ScoredText
from llm_local.runtime.leases import Lease
from llm_local.runtime.reception import Demand, Reception
from llm_local.runtime.vectors import Embedder, EmbedRequest

if TYPE_CHECKING:
    from llm_local.generation.decisions import PreparedDecision

__all__ = ["Judge"]

MAX_DOCUMENTS: Final = Bound(1, 1000, integer=True)
DOCUMENTS_AT_ONCE: Final = 16
YES, NO = "Yes", "No"
RELEVANCE: Final = (
    "Query: {query}\n\nDocument: {document}\n\n"
    "Does the document help to answer the query? Answer with Yes or No."
)


class Judge:
    """Judges with the models of the pool."""

    def __init__(self, reception: Reception, embedder: Embedder, threads: ThreadPoolExecutor) -> None:
        self._reception = reception
        self._embedder = embedder
        self._threads = threads
        self._numbers = itertools.count(1)

    async def decide(
        self,
        demand: Demand,
        question: Sequence[Message] | str,
        choices: Sequence[str],
        options: DecisionOptions,
    ) -> Decision:
        """See `Service.decide`."""
        async with self._reception.turn(demand) as lease:
            decision = await self._decided(lease, demand, question, choices, options)
            return dataclasses.replace(decision, notices=(*lease.notices, *decision.notices))

    async def score(
        self, demand: Demand, text: str | Sequence[int], given: str, top_logprobs: int
    ) -> ScoredText:
        """See `Service.score`."""
        async with self._reception.turn(demand) as lease:
            scoring = lease.model.generator.scoring
            prepared = await self._in_thread(scoring.prepare, text, given, top_logprobs)
            found: list[TokenLogprob] = []
            request = prepared.request(self._new_id(), owner=demand.caller.owner, priority=demand.priority)
            last = await self._run(lease, request, found)
            if last.report is None:
                raise EngineError("The request was cancelled.")
            logprobs = prepared.logprobs(found)
            missing: tuple[None, ...] = (None,) * (len(prepared.text_ids) - len(logprobs))
            return ScoredText(lease.name, prepared.text_ids, missing + logprobs, last.report.usage)

    async def rerank(
        self, demand: Demand, query: str, documents: Sequence[str], top_n: int | None
    ) -> Ranking:
        """See `Service.rerank`."""
        MAX_DOCUMENTS.check("documents", len(documents))
        async with self._reception.turn(demand) as lease:
            if demand.embeds:
                scores, tokens = await self._by_vectors(lease, query, documents)
            else:
                scores, tokens = await self._by_decisions(lease, demand, query, documents)
            name = lease.name
        ranked = sorted(
            (Ranked(index, score) for index, score in enumerate(scores)), key=lambda one: -one.score
        )
        return Ranking(name, tuple(ranked[:top_n]), tokens)

    async def _by_vectors(
        self, lease: Lease, query: str, documents: Sequence[str]
    ) -> tuple[list[float], int]:
        """The cosine between query and document, from -1..1 to 0..1."""
        prompts = lease.embedding.embedder.layout.prompts
        asked = await self._embedder.embed_with(
            lease, EmbedRequest([query], truncate=True, prompt_name="query" if "query" in prompts else None)
        )
        name = next((one for one in ("document", "passage") if one in prompts), None)
        found = await self._embedder.embed_with(
            lease, EmbedRequest(documents, truncate=True, prompt_name=name)
        )
        scores = [(1 + _cosine(asked.vectors[0], vector)) / 2 for vector in found.vectors]
        return scores, asked.prompt_tokens + found.prompt_tokens

    async def _by_decisions(
        self, lease: Lease, demand: Demand, query: str, documents: Sequence[str]
    ) -> tuple[list[float], int]:
        """How likely the model says that the document helps."""

        some = asyncio.Semaphore(DOCUMENTS_AT_ONCE)

        async def one(document: str) -> tuple[float, int]:
            question = [Message("user", RELEVANCE.format(query=query, document=document))]
            async with some:
                decision = await self._decided(lease, demand, question, (YES, NO), DecisionOptions())
            return decision.choices[0].probability, decision.usage.prompt_tokens

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(document)) for document in documents]
        except* LocalLLMError as failures:
            raise failures.exceptions[0] from None
        results = [task.result() for task in tasks]
        return [score for score, _ in results], sum(tokens for _, tokens in results)

    async def _decided(
        self,
        lease: Lease,
        demand: Demand,
        question: Sequence[Message] | str,
        choices: Sequence[str],
        options: DecisionOptions,
    ) -> Decision:
        decider = lease.model.generator.decisions
        prepare = decider.prepare_text if isinstance(question, str) else decider.prepare_chat
        prepared: PreparedDecision = await self._in_thread(prepare, question, choices, options)
        request = prepared.request(self._new_id(), owner=demand.caller.owner, priority=demand.priority)
        return prepared.decision(await self._run(lease, request, []))

    async def _run(self, lease: Lease, request: TokenRequest, found: list[TokenLogprob]) -> TokenStep:
        """Run a sequence to its last step; the prompt's log-probabilities go to `found`."""
        worker, loop = lease.text.worker, asyncio.get_running_loop()
        done: asyncio.Future[TokenStep] = loop.create_future()

        def take(step: EngineStep) -> None:
            if isinstance(step, PrefillStep):
                found.extend(step.logprobs)
            elif step.last and not done.done():
                done.set_result(step)

        def post(step: EngineStep) -> None:
            loop.call_soon_threadsafe(take, step)

        worker.submit(request, post)
        try:
            step = await done
        finally:
            worker.cancel(request.sequence_id, deliver_rest=False)
        if step.error is not None:
            raise step.error
        return step

    def _new_id(self) -> str:
        return f"judge-{next(self._numbers)}"

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _cosine(left: Sequence[float], right: Sequence[float]) -> float:
    product = math.fsum(a * b for a, b in zip(left, right, strict=True))
    lengths = math.hypot(*left) * math.hypot(*right)
    return max(-1.0, min(1.0, product / lengths)) if lengths else 0.0
