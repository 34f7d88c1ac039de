"""Who runs in the next forward pass.

Decodes first, one token each; then continuations that are only scored, and prefill, both together at most one chunk.
Whose prompt is read next: the higher
priority, then the owner who was served fewer tokens, then who came first.

A sequence starts when its prompt fits the K/V byte budget; what finished sequences left in the prefix cache gives
way first. When a running one cannot grow, the lowest and youngest is preempted: its memory is freed and it is
computed again later, with the tokens it has sampled.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from types import MappingProxyType
from typing import Final, cast

from llm_local.engine.kv_cache import KVBudget, SequenceKV
from llm_local.engine.prefix_cache import MIN_MATCH_TOKENS, PrefixCache, common_length
from llm_local.engine.sequence import Branch, Chunk, Sequence, SequenceState

__all__ = ["MAX_RUNNING", "Scheduler"]

logger = logging.getLogger(__name__)

NO_DRAFTS: Final[Mapping[str, SequenceOf[int]]] = MappingProxyType({})

# More sequences than this make each step slower than they make the sum faster.
MAX_RUNNING = 64


class Scheduler:
    """`waiting` for admission, `running` in order of admission."""

    def __init__(
        self, budget: KVBudget, max_chunk_tokens: int | None, prefix_cache: PrefixCache | None = None
    ) -> None:
        self.budget = budget
        self.prefix_cache = prefix_cache
        self._max_chunk_tokens = max_chunk_tokens
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self._num_served: dict[str | None, int] = {}

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence. An owner who was away starts level with the least served one here."""
        owner = sequence.request.owner
        if owner not in self._num_served:
            self._num_served[owner] = min(self._num_served.values(), default=0)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence, *, keep: bool) -> None:
        """Take a sequence out, wherever it is; its memory is freed, or with `keep` left to the prefix cache."""
        (self.running if sequence in self.running else self.waiting).remove(sequence)
        owner = sequence.request.owner
        if not any(other.request.owner == owner for other in (*self.running, *self.waiting)):
            del self._num_served[owner]
        if keep and self.prefix_cache is not None:
            computed = sequence.tokens[: sequence.num_computed]
            self.prefix_cache.put(owner, computed, cast(SequenceKV, sequence.state))
        else:
            sequence.state.free()

    def schedule(self, drafts: Mapping[str, SequenceOf[int]] = NO_DRAFTS) -> list[Chunk]:
        """The chunks of the next forward pass. Empty when there is no work, or none that fits: see `stuck`.

        `drafts` are guesses for decoding sequences by id; they are run where there is room for them.
        """
        num_waiting = len(self.waiting)
        chunks = self._decodes(drafts)
        if len(self.waiting) == num_waiting:
            promised_bytes = sum(c.sequence.state.bytes_to_append(c.length) for c in chunks)
            branches = self._branches(promised_bytes)
            chunks += [*branches, *self._prefills(promised_bytes, sum(c.length for c in branches))]
        # else someone was preempted, and what was freed is for the others; starting anything would only thrash
        if not chunks and self.running and all(sequence.held is None for sequence in self.running):
            self._preempt([])
        for chunk in chunks:
            self._num_served[chunk.sequence.request.owner] += chunk.length
        return chunks

    def stuck(self) -> Sequence | None:
        """The sequence that waits although nothing else holds memory: it has outgrown the budget for good."""
        return self.waiting[0] if self.waiting and not self.running else None

    def _decodes(self, drafts: Mapping[str, SequenceOf[int]]) -> list[Chunk]:
        """One token and its guesses for every running sequence that has read its prompt, as far as memory goes."""
        chunks: list[Chunk] = []
        promised_bytes = 0
        for sequence in sorted(self.running, key=lambda s: -s.request.priority):
            # the second question: it may have been preempted in this very loop
            if sequence.num_pending != 1 or sequence not in self.running:
                continue
            while not self._fits(promised_bytes + sequence.state.bytes_to_append(1)):
                if self._preempt(chunks) is sequence:
                    break
            else:
                guesses = tuple(drafts.get(sequence.sequence_id, ()))[: sequence.num_left - 1]
                if not self.budget.fits(promised_bytes + sequence.state.bytes_to_append(1 + len(guesses))):
                    guesses = ()
                promised_bytes += sequence.state.bytes_to_append(1 + len(guesses))
                chunks.append(Chunk(sequence, 1, guesses))
        return chunks

    def _branches(self, promised_bytes: int) -> list[Chunk]:
        """Continuations of prompts that are read, side by side: `max_chunk_tokens` at most; None means one of them."""
        chunks: list[Chunk] = []
        left = self._max_chunk_tokens
        for sequence in self._in_turn([sequence for sequence in self.running if sequence.branches]):
            for path in () if sequence.continuations is None else sequence.continuations.pending():
                if chunks and (left is None or left < len(path)):
                    return chunks
                state = self._branched(sequence, len(path), promised_bytes)
                if state is None and chunks:
                    return chunks
                # no room for a copy: in the prompt's own memory, so one at a time
                branch = Branch(sequence, path, sequence.state if state is None else state)
                chunks.append(Chunk(branch, len(path)))
                left = None if left is None else left - len(path)
        return chunks

    def _branched(self, sequence: Sequence, num_new: int, promised_bytes: int) -> SequenceState | None:
        """Memory that begins like a sequence's, with room for `num_new` tokens; None when there is no room for it."""
        length = len(sequence.tokens)
        room = length + num_new
        if not self._fits(promised_bytes + sequence.state.bytes_to_branch(length, room)):
            return None
        try:
            return sequence.state.branch(length, room)
        except (RuntimeError, MemoryError):
            logger.warning("no memory to score continuations side by side", exc_info=True)
            return None

    def _prefills(self, promised_bytes: int, num_taken: int) -> list[Chunk]:
        """Chunks of prompts, with `num_taken` tokens at most `max_chunk_tokens`; None means one whole prompt."""
        chunks: list[Chunk] = []
        left = None if self._max_chunk_tokens is None else max(0, self._max_chunk_tokens - num_taken)
        reading = [sequence for sequence in self.running if sequence.num_pending > 1]
        for sequence in [*self._in_turn(reading), *self._in_turn(self.waiting)]:
            if left == 0 or (
                sequence not in self.running and not self._admit(sequence, left, promised_bytes)
            ):
                break
            length = _chunk_length(sequence, left)
            if not self._fits(promised_bytes + sequence.state.bytes_to_append(length)):
                break
            promised_bytes += sequence.state.bytes_to_append(length)
            chunks.append(Chunk(sequence, length))
            if left is None:
                break
            left -= length
        return chunks

    def _in_turn(self, sequences: list[Sequence]) -> list[Sequence]:
        """Higher priority first, then the owner with fewer tokens served; equals keep their order."""
        return sorted(sequences, key=lambda s: (-s.request.priority, self._num_served[s.request.owner]))

    def _admit(self, sequence: Sequence, left: int | None, promised_bytes: int) -> bool:
        """Start a sequence where there is room, as a copy of the longest computed beginning that its owner has."""
        if len(self.running) == MAX_RUNNING:
            return False
        room = sequence.room
        while True:
            # looked for again after every eviction, which may have taken what was found
            source, length = self._reusable(sequence)
            if source is None:
                need_bytes = sequence.state.bytes_to_append(_chunk_length(sequence, left))
            else:
                need_bytes = source.bytes_to_fork(length, room)
            if self.budget.fits(promised_bytes + need_bytes):
                break
            if self.prefix_cache is None or not self.prefix_cache.evict():
                return False
        if source is not None:
            try:
                cast(SequenceKV, sequence.state).fork(source, length, room)
                sequence.start_at(length)
            except (RuntimeError, MemoryError):
                logger.warning("no memory to reuse a computed beginning; reading it again", exc_info=True)
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _reusable(self, sequence: Sequence) -> tuple[SequenceKV | None, int]:
        """The memory, of a running or finished sequence, that has most of this one's first tokens, and how many."""
        if self.prefix_cache is None or sequence.request.prompt_logprobs:
            return None, 0
        owner = sequence.request.owner
        # the last token always runs: its logits give the next one
        wanted = sequence.tokens[:-1]
        best: tuple[SequenceKV | None, int] = (None, MIN_MATCH_TOKENS - 1)
        found = self.prefix_cache.find(owner, wanted)
        if found is not None:
            best = found
        for other in self.running:
            if other.request.owner == owner:
                length = common_length(other.tokens[: other.num_computed], wanted)
                state = cast(SequenceKV, other.state)
                if length > best[1] and state.can_fork(length):
                    best = (state, length)
        return best

    def _fits(self, num_bytes: int) -> bool:
        """True when there is room, made by forgetting what finished sequences left where needed."""
        while not self.budget.fits(num_bytes):
            if self.prefix_cache is None or not self.prefix_cache.evict():
                return False
        return True

    def _preempt(self, chunks: list[Chunk]) -> Sequence:
        """Put the lowest, youngest sequence that is not yet in `chunks` back at the head of the line."""
        scheduled = {id(chunk.sequence) for chunk in chunks}
        free = [sequence for sequence in self.running if id(sequence) not in scheduled]
        victim = min(reversed(free), key=lambda s: s.request.priority)
        self.running.remove(victim)
        victim.restart()
        self.waiting.insert(0, victim)
        return victim


def _chunk_length(sequence: Sequence, left: int | None) -> int:
    return sequence.num_pending if left is None else min(left, sequence.num_pending)
