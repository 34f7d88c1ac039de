"""One row in the engine: its tokens, its keys and values, its sampler, its clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Protocol

import torch

from llm_local.engine.continuations import Continuations
from llm_local.engine.kv_cache import KVBudget
from llm_local.engine.late_masks import Held
from llm_local.engine.protocol import ContinuationScores, SequenceReport, TokenRequest
from llm_local.events import Timings, Usage
from llm_local.sampling.sampler import Sampler

__all__ = ["Branch", "Chunk", "Runner", "Sequence", "SequenceState"]


class SequenceState(Protocol):
    """What the model remembers of one sequence, owned by a runner."""

    @property
    def num_bytes(self) -> int:
        """Bytes held now."""

    def bytes_to_append(self, num_new: int) -> int:
        """Bytes that `num_new` more tokens will add."""

    def rollback(self, length: int) -> bool:
        """Go back to the first `length` tokens after a failed forward; False: everything is forgotten."""

    def bytes_to_branch(self, length: int, room: int) -> int:
        """Bytes that `branch` will add."""

    def branch(self, length: int, room: int) -> SequenceState:
        """Memory for another sequence with the same first `length` tokens: with them in it, or empty."""

    def free(self) -> None:
        """Give all memory back; the sequence starts again from nothing."""


class Runner(Protocol):
    """Takes chunks through the model and keeps what the model remembers of each sequence."""

    budget: KVBudget
    max_chunk_tokens: int | None

    @property
    def description(self) -> str:
        """What computes, in a few words for people."""

    def new_state(self, expected_tokens: int) -> SequenceState:
        """Memory for one new sequence."""

    def run(self, chunks: SequenceOf[Chunk]) -> torch.Tensor:
        """One forward pass: logits `[sum of num_logits, vocab]`, float32 on the CPU, good until the next one."""


class Sequence:
    """A request at work. `num_computed` tokens have gone through the model; the others are scheduled next."""

    def __init__(
        self, request: TokenRequest, state: SequenceState, sampler: Sampler, max_tokens: int
    ) -> None:
        self.request = request
        self.state = state
        self.sampler = sampler
        self.max_tokens = max_tokens
        self.tokens: list[int] = list(request.prompt_ids)
        self.num_computed = 0
        self.num_cached = 0
        self.num_drafted = 0
        self.num_accepted = 0
        self.num_scored = 1  # prompt tokens whose log-probability is known; the first has none
        self.continuations: Continuations | None = None
        if request.continuations:
            self.continuations = Continuations(request.continuations, request.stop_token_ids)
        self.held: Held | None = None
        self.cancelled = False
        self.submitted_at = 0.0
        self.scheduled_at: float | None = None
        self.first_token_at: float | None = None

    @property
    def sequence_id(self) -> str:
        """The caller's name for it."""
        return self.request.sequence_id

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens the caller gave."""
        return len(self.request.prompt_ids)

    @property
    def num_completion_tokens(self) -> int:
        """Tokens sampled so far."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_pending(self) -> int:
        """Tokens that have not gone through the model: 1 while decoding, more in prefill."""
        return len(self.tokens) - self.num_computed

    @property
    def num_left(self) -> int:
        """Tokens that may still be sampled."""
        return self.max_tokens - len(self.tokens)

    @property
    def root(self) -> Sequence:
        """The sequence that somebody asked for: this one, unless it is a branch."""
        return self

    @property
    def scores(self) -> ContinuationScores | None:
        """How likely the continuations are, once all of them are scored."""
        return (
            None if self.continuations is None or not self.continuations.done else self.continuations.scores()
        )

    @property
    def room(self) -> int:
        """Tokens that memory should have room for when the sequence starts."""
        return len(self.tokens) + (1 if self.continuations is None else self.continuations.longest)

    @property
    def branches(self) -> bool:
        """True when the prompt has been read and its continuations are next."""
        return self.continuations is not None and self.num_pending == 0

    @property
    def decoding(self) -> bool:
        """True when everything but the last token has gone through the model."""
        return self.num_pending == 1 and self.num_computed > 0

    def start_at(self, num_cached: int) -> None:
        """The first `num_cached` tokens are already in memory, copied from another sequence."""
        self.num_computed = num_cached
        if self.num_completion_tokens == 0:
            self.num_cached = num_cached

    def restart(self) -> None:
        """Preempt: free the memory and compute everything again later. Sampled tokens stay."""
        self.state.free()
        self.held = None
        self.num_computed = 0
        if self.num_completion_tokens == 0:
            self.num_cached = 0

    def report(self, now: float) -> SequenceReport:
        """The final account; `now` in monotonic seconds."""
        scheduled_at = now if self.scheduled_at is None else self.scheduled_at
        # a sequence that ended before its first token was in prefill until the end
        first_token_at = now if self.first_token_at is None else self.first_token_at
        return SequenceReport(
            usage=Usage(
                prompt_tokens=self.num_prompt_tokens,
                cached_tokens=self.num_cached,
                completion_tokens=self.num_completion_tokens,
                drafted_tokens=self.num_drafted,
                accepted_tokens=self.num_accepted,
            ),
            timings=Timings(
                queued_s=scheduled_at - self.submitted_at,
                prefill_s=first_token_at - scheduled_at,
                decode_s=now - first_token_at,
                first_token_s=0.0 if self.first_token_at is None else first_token_at - self.submitted_at,
            ),
        )


class Branch(Sequence):
    """A continuation of its parent's prompt, for one forward pass. No scheduler keeps it and nobody reads it.

    Its memory is its own, or in need its parent's.
    """

    def __init__(self, parent: Sequence, path: tuple[int, ...], state: SequenceState) -> None:
        request = dataclasses.replace(
            parent.request,
            prompt_ids=parent.request.prompt_ids + path,
            prompt_logprobs=True,  # the logits of all its tokens
            continuations=(),
        )
        super().__init__(request, state, parent.sampler, parent.max_tokens)
        self.parent = parent
        self.path = path
        self.num_computed = len(parent.tokens)

    @property
    def root(self) -> Sequence:
        """Its parent."""
        return self.parent

    def release(self) -> None:
        """Give the memory back, once the pass is over."""
        if self.state is self.parent.state:
            self.state.rollback(len(self.parent.tokens))
        else:
            self.state.free()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `num_pending` tokens of a sequence, and guesses behind them, scheduled into one forward pass."""

    sequence: Sequence
    num_pending: int
    drafts: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens to run."""
        return self.num_pending + len(self.drafts)

    @property
    def token_ids(self) -> list[int]:
        """The ids to run."""
        start = self.sequence.num_computed
        return [*self.sequence.tokens[start : start + self.num_pending], *self.drafts]

    @property
    def num_logits(self) -> int:
        """How many of the chunk's last tokens need their logits."""
        sequence = self.sequence
        if sequence.request.prompt_logprobs and sequence.num_computed < sequence.num_prompt_tokens:
            return self.length
        return 1 + len(self.drafts) if self.completes else 0

    @property
    def completes(self) -> bool:
        """True when the chunk reaches the sequence's last token, whose logits give the next one."""
        return self.num_pending == self.sequence.num_pending
