"""Texts to vectors, in a thread: one model computes for one request at a time, and stops when nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from llm_local.errors import EngineError, InvalidRequest
from llm_local.options import Bound
from llm_local.runtime.answers import EmbeddedTexts
from llm_local.runtime.leases import Lease
from llm_local.runtime.reception import Demand, Reception
from llm_local.runtime.residents import EmbeddingModel

__all__ = ["EmbedRequest", "Embedder"]

MAX_TEXTS: Final = Bound(1, 10_000, integer=True)


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts, or the token ids that the caller made of them; each becomes one vector.

    The other fields are those of `embedder.EmbedOptions`.
    """

    inputs: Sequence[str | Sequence[int]]
    dimensions: int | None = None
    truncate: bool = False
    prompt_name: str | None = None
    prompt: str | None = None


class Embedder:
    """Embeds with the models of the pool."""

    def __init__(self, reception: Reception, threads: ThreadPoolExecutor) -> None:
        self._reception = reception
        self._threads = threads

    async def embed(self, demand: Demand, request: EmbedRequest) -> EmbeddedTexts:
        """See `Service.embed`."""
        MAX_TEXTS.check("input", len(request.inputs))
        async with self._reception.turn(demand) as lease:
            return await self.embed_with(lease, request)

    async def embed_with(self, lease: Lease, request: EmbedRequest) -> EmbeddedTexts:
        """The same with a model that one has already."""
        gone = threading.Event()
        model, name, load_s = lease.embedding, lease.name, lease.load_s
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, _embed, model, request, gone)
        try:
            vectors, counts, left_out, seconds = await asyncio.shield(future)
        except asyncio.CancelledError:
            gone.set()
            # the model is in use until its thread is done with it
            await asyncio.gather(future, return_exceptions=True)
            raise
        return EmbeddedTexts(name, vectors, counts, left_out, load_s, seconds, model.notices)


def _embed(
    model: EmbeddingModel, request: EmbedRequest, gone: threading.Event
) -> tuple[tuple[tuple[float, ...], ...], tuple[int, ...], tuple[int, ...], float]:
    # Late: it imports torch, which is there by now.
    from llm_local.embedder import EmbedOptions

    options = EmbedOptions(
        prompt_name=request.prompt_name,
        prompt=request.prompt,
        dimensions=request.dimensions,
        truncate=request.truncate,
    )
    with model.lock:
        began = time.perf_counter()
        if all(isinstance(one, str) for one in request.inputs):
            prepared = model.embedder.prepare([str(one) for one in request.inputs], options)
        elif any(isinstance(one, str) for one in request.inputs):
            raise InvalidRequest("Texts and token ids are mixed.", "Give one or the other.", param="input")
        else:
            prepared = model.embedder.prepare_ids([_ids(one) for one in request.inputs], options)
        found = list(model.embedder.stream(prepared, options, stopped=gone.is_set))
        if len(found) < len(request.inputs):
            raise EngineError("The request was cancelled.")
        vectors = tuple(tuple(one.vector.tolist()) for one in found)
        counts = tuple(one.prompt_tokens for one in found)
        left_out = tuple(one.truncated_tokens for one in found)
        return vectors, counts, left_out, time.perf_counter() - began


def _ids(one: str | Sequence[int]) -> tuple[int, ...]:
    return () if isinstance(one, str) else tuple(one)
