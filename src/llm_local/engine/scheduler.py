"""Who runs in the next forward pass.

Decodes first, one token each; then prefill, at most one chunk's worth, first come first served.
A sequence starts when its prompt fits the K/V byte budget. When a running one cannot grow, the youngest is
preempted: its memory is freed and it is computed again later, with the tokens it has sampled.
"""

from __future__ import annotations

from collections import deque
from typing import cast

from llm_local.engine.kv_cache import KVBudget, SequenceKV
from llm_local.engine.prefix_cache import MIN_MATCH_TOKENS, PrefixCache, common_length
from llm_local.engine.sequence import Chunk, Sequence

__all__ = ["Scheduler"]


class Scheduler:
    """Two lists: `waiting` in order of arrival, `running` in order of admission."""

    def __init__(
        self, budget: KVBudget, max_chunk_tokens: int | None, prefix_cache: PrefixCache | None = None
    ) -> None:
        self.budget = budget
        self.prefix_cache = prefix_cache
        self._max_chunk_tokens = max_chunk_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._preempted = False

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence, *, keep: bool) -> None:
        """Take a sequence out, wherever it is; its memory is freed, or with `keep` left to the prefix cache."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        if keep and self.prefix_cache is not None:
            computed = sequence.tokens[: sequence.num_computed]
            self.prefix_cache.put(sequence.request.owner, computed, cast(SequenceKV, sequence.state))
        else:
            sequence.state.free()

    def schedule(self) -> list[Chunk]:
        """The chunks of the next forward pass; empty when nothing waits or runs."""
        chunks: list[Chunk] = []
        promised_bytes = 0
        for sequence in [s for s in self.running if s.num_pending == 1]:
            if sequence not in self.running:
                continue  # preempted by an older one in this very loop
            if self._make_room(sequence, promised_bytes):
                promised_bytes += sequence.state.bytes_to_append(1)
                chunks.append(Chunk(sequence, 1))
        if self._preempted:
            # what was just freed is for the older ones; starting anything now would only thrash
            self._preempted = False
            return chunks
        return chunks + self._prefill(promised_bytes)

    def _prefill(self, promised_bytes: int) -> list[Chunk]:
        """Chunks of prompts, together at most `max_chunk_tokens`; None means one whole prompt."""
        chunks: list[Chunk] = []
        left = self._max_chunk_tokens
        for sequence in [s for s in self.running if s.num_pending > 1] + list(self.waiting):
            length = sequence.num_pending if left is None else min(left, sequence.num_pending)
            # the first chunk allocates for the whole prompt, so this is asked in earnest once per prompt
            if length == 0 or not self._fits(promised_bytes + sequence.state.bytes_to_append(length)):
                break
            if sequence not in self.running:
                self._reuse(sequence)
                self.waiting.remove(sequence)
                self.running.append(sequence)
                length = min(length, sequence.num_pending)
            promised_bytes += sequence.state.bytes_to_append(length)
            chunks.append(Chunk(sequence, length))
            if left is None:
                break
            left -= length
        return chunks

    def _reuse(self, sequence: Sequence) -> None:
        """Start a sequence as a copy of the longest computed beginning that its owner has, running or finished."""
        if self.prefix_cache is None:
            return
        owner = sequence.request.owner
        # the last token always runs: its logits give the next one
        wanted = sequence.tokens[:-1]
        candidates = [
            (common_length(other.tokens[: other.num_computed], wanted), other.state)
            for other in self.running
            if other.request.owner == owner
        ]
        found = self.prefix_cache.find(owner, wanted)
        if found is not None:
            candidates.append((found[1], found[0]))
        length, source = max(candidates, key=lambda c: c[0], default=(0, None))
        if length >= MIN_MATCH_TOKENS and cast(SequenceKV, sequence.state).fork(
            cast(SequenceKV, source), length
        ):
            sequence.start_at(length)

    def _fits(self, num_bytes: int) -> bool:
        """True when there is room, made by forgetting what finished sequences left where needed."""
        while not self.budget.fits(num_bytes):
            if self.prefix_cache is None or not self.prefix_cache.evict():
                return False
        return True

    def stuck(self) -> Sequence | None:
        """The sequence that waits although nothing else holds memory: it has outgrown the budget for good."""
        return self.waiting[0] if self.waiting and not self.running else None

    def _make_room(self, sequence: Sequence, promised_bytes: int) -> bool:
        """Preempt the youngest until `sequence` can grow by one token. False when it had to go itself."""
        while not self._fits(promised_bytes + sequence.state.bytes_to_append(1)):
            youngest = self.running.pop()
            youngest.restart()
            self.waiting.appendleft(youngest)
            self._preempted = True
            if youngest is sequence:
                return False
        return True
