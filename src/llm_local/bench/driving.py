"""Taking an engine through prompts of token ids, and noting when each token came."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llm_local.bench.figures import TokenTimes
from llm_local.engine.protocol import Engine, SequenceReport, TokenRequest, TokenStep
from llm_local.errors import ContextLengthExceeded
from llm_local.options import GenerationOptions
from llm_local.specs import EngineOptions, ModelInfo

__all__ = ["Clock", "Peer", "Run", "Subject", "drive", "greedy_request", "random_prompt"]

Clock = Callable[[], float]


class Peer(Protocol):
    """What the engine is compared with: a batch of prompts of one length in, the greedy tokens out."""

    def generate(
        self, prompts: Sequence[Sequence[int]], num_new: int, on_token: Callable[[], None]
    ) -> list[list[int]]:
        """`num_new` tokens after each prompt; `on_token` is called when all sequences have one more."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be measured, and how engines over it are made. `model` is transformers'."""

    model: Any
    info: ModelInfo
    options: EngineOptions

    def make_engine(self, *, prefix_cache: bool) -> Engine:
        """A fresh engine with the memory the product would give it."""
        # Late: these import torch, and the flags are judged without it.
        from llm_local.engine.factory import make_engine
        from llm_local.loaders.devices import available_bytes

        limit = self.options.kv_cache_bytes or available_bytes(self.info.device) // 2
        return make_engine(
            self.model,
            context_length=self.info.context_length,
            kv_limit_bytes=limit,
            prefix_cache_bytes=limit // 2 if prefix_cache else 0,
        )

    def num_threads(self) -> int:
        """How many CPU threads a forward pass of it uses."""
        # Late: it imports torch.
        from llm_local.engine.threads import threads_for

        return threads_for(self.model)

    def require_room(self, prompt_tokens: int, new_tokens: int) -> None:
        """Check that a sequence fits the window, before anything is measured.

        Raises:
            ContextLengthExceeded: it does not.
        """
        if prompt_tokens + new_tokens > self.info.context_length:
            raise ContextLengthExceeded(
                prompt_tokens=prompt_tokens, reserve=new_tokens, context_length=self.info.context_length
            )


@dataclass(frozen=True, slots=True)
class Run:
    """What came of prompts that ran together, in their order. `kv_bytes` is the most that keys and values took."""

    times: TokenTimes
    token_ids: tuple[tuple[int, ...], ...]
    reports: tuple[SequenceReport, ...]
    kv_bytes: int


def drive(engine: Engine, requests: Sequence[TokenRequest], clock: Clock = time.perf_counter) -> Run:
    """Submit all requests at once and step the engine until the last is done. All tokens of a step come at once.

    Raises:
        LocalLLMError: a sequence was refused, or failed.
    """
    moments: dict[str, list[float]] = {request.sequence_id: [] for request in requests}
    token_ids: dict[str, list[int]] = {request.sequence_id: [] for request in requests}
    reports: dict[str, SequenceReport] = {}
    kv_bytes = 0
    submitted_s = clock()
    for request in requests:
        engine.submit(request)
    while engine.has_work():
        steps = engine.step()
        now = clock()
        for step in steps:
            if not isinstance(step, TokenStep):
                continue
            if step.error is not None:
                raise step.error
            if step.token_id is not None:
                moments[step.sequence_id].append(now)
                token_ids[step.sequence_id].append(step.token_id)
            if step.report is not None:
                reports[step.sequence_id] = step.report
        kv_bytes = max(kv_bytes, engine.stats()["kv_used_bytes"])
    order = [request.sequence_id for request in requests]
    return Run(
        TokenTimes(submitted_s, tuple(tuple(moments[one]) for one in order)),
        tuple(tuple(token_ids[one]) for one in order),
        tuple(reports[one] for one in order),
        kv_bytes,
    )


def greedy_request(sequence_id: str, prompt_ids: Sequence[int], new_tokens: int) -> TokenRequest:
    """Exactly `new_tokens` most likely tokens after a prompt: no token ends it."""
    options = GenerationOptions(max_new_tokens=new_tokens, temperature=0)
    return TokenRequest(sequence_id, tuple(prompt_ids), options)


def random_prompt(length: int, vocab_size: int, seed: str) -> tuple[int, ...]:
    """`length` token ids, always the same for a seed."""
    draw = random.Random(seed)  # noqa: S311  (nothing is kept secret)
    return tuple(draw.randrange(vocab_size) for _ in range(length))
