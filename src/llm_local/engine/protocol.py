"""The words between the engine and whoever drives it. An engine is anything that satisfies `Engine`.

Thread law: an engine is used from one thread. `step()` never waits for a reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_local.errors import LocalLLMError
from llm_local.events import FinishReason, Timings, TokenLogprob, Usage
from llm_local.options import GenerationOptions

__all__ = [
    "ContinuationScores",
    "Engine",
    "EngineStep",
    "PrefillStep",
    "SequenceReport",
    "TokenMask",
    "TokenRequest",
    "TokenStep",
]


class TokenMask(Protocol):
    """A constraint at work on one sequence: which tokens may come next."""

    def allowed(self) -> Sequence[bool] | Sequence[float]:
        """One entry per vocabulary id, `[vocab]`; at least one is allowed.

        Booleans, or what the sampler applies fastest: a float32 array, 0 for the allowed and minus infinity else.
        """

    def ready(self, seconds: float) -> bool:
        """True when `allowed` answers at once; waits for that at most so long. Others go on meanwhile."""

    def accept(self, token_id: int) -> None:
        """Advance by the token that was sampled."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One sequence to generate. `options.stop` is text and not the engine's business: the caller cancels.

    `stop_token_ids` end the sequence with finish reason "stop"; `owner` separates users' caches and shares; a
    higher `priority` is admitted first and preempted last. `prompt_logprobs` asks for the prompt's log-probabilities,
    with `options.top_logprobs` alternatives; such a prompt is always read whole, never taken from the prefix cache.
    With `continuations`, texts of at least one token, nothing is sampled: the last step has their scores.
    """

    sequence_id: str
    prompt_ids: tuple[int, ...]
    options: GenerationOptions
    stop_token_ids: frozenset[int] = frozenset()
    mask: TokenMask | None = None
    owner: str | None = None
    priority: int = 0
    prompt_logprobs: bool = False
    continuations: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class SequenceReport:
    """What a finished sequence cost."""

    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class ContinuationScores:
    """How likely each text is to come right after the prompt, under the model's own distribution.

    `logprobs` has one natural log-probability per token of each text; `end_logprobs`, where the request has
    `stop_token_ids`, that of any of them right after each text. `num_tokens` of the texts went through the model, and
    `num_passes` forward passes had a part of the prompt or of them.
    """

    logprobs: tuple[tuple[float, ...], ...]
    end_logprobs: tuple[float, ...]
    num_tokens: int
    num_passes: int


@dataclass(frozen=True, slots=True)
class PrefillStep:
    """`done` of `total` prompt tokens have been read.

    `logprobs` are those of prompt tokens, where asked for: each token's under the tokens before it, from the second
    token on, over all steps in order.
    """

    sequence_id: str
    done: int
    total: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenStep:
    """One sampled token, or the end of a sequence, or both.

    The last step of a sequence carries `report` and either `finish_reason` or `error`.
    `token_id` is None when the sequence ended without sampling (cancelled, failed).
    """

    sequence_id: str
    token_id: int | None = None
    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    error: LocalLLMError | None = None
    report: SequenceReport | None = None
    scores: ContinuationScores | None = None

    @property
    def last(self) -> bool:
        """True for the last step of its sequence."""
        return self.report is not None


EngineStep = PrefillStep | TokenStep


class Engine(Protocol):
    """Submit sequences, step until they are done."""

    def submit(self, request: TokenRequest) -> None:
        """Queue a sequence.

        Raises:
            InvalidRequest: empty prompt, an id outside the vocabulary, or a sequence id in use.
            ContextLengthExceeded: prompt and one new token, or its longest continuation, do not fit the window.
            InsufficientMemory: its keys and values can never fit the byte budget.
        """

    def step(self) -> list[EngineStep]:
        """Run one iteration for all sequences and return what happened. Empty when there is no work."""

    def cancel(self, sequence_id: str) -> None:
        """Mark a sequence; the next step ends it with "cancelled" and frees its memory. Unknown ids are ignored."""

    def has_work(self) -> bool:
        """True while a sequence waits or runs."""

    @property
    def description(self) -> str:
        """What computes the forward passes, in a few words for people."""

    def stats(self) -> Mapping[str, int]:
        """Exact counts now: sequences waiting and running, K/V bytes in use and allowed."""
