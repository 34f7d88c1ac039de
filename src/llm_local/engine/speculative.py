"""Guessing the next tokens cheaply, so that one forward pass of the model can confirm several.

A drafter proposes; the engine runs the proposals behind the last token and samples at each place as always. As long
as the sampled token is the proposed one, the next place's logits are the right ones and count; the first other token
ends the step, and what was computed behind it is forgotten. So every token is still drawn from the model's own
distribution with the sequence's own generator: the same ids with and without speculation, greedy or sampled.
(Leviathan et al. 2023 accept a draft token with min(1, p/q); for a drafter that always proposes its best guess,
q = 1, both accept with probability p.)
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from typing import Protocol, cast

from llm_local.engine.kv_cache import SequenceKV
from llm_local.engine.prefix_cache import common_length
from llm_local.engine.protocol import TokenRequest
from llm_local.engine.sequence import Chunk, Runner, Sequence

__all__ = ["Drafter", "ModelDrafter", "NgramDrafter", "guess_ahead"]

logger = logging.getLogger(__name__)


class Drafter(Protocol):
    """Proposes continuations."""

    def propose(self, sequences: SequenceOf[Sequence]) -> dict[str, list[int]]:
        """Likely next tokens of each sequence, by its id; a sequence without an idea may be missing."""

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended."""


def guess_ahead(
    drafter: Drafter | None, running: SequenceOf[Sequence], vocab_size: int
) -> dict[str, list[int]]:
    """Guesses for the sequences that decode, by their id; without a drafter, or with one that fails, there are none."""
    decoding = [sequence for sequence in running if sequence.decoding]
    if drafter is None or not decoding:
        return {}
    try:
        proposed = drafter.propose(decoding)
    except Exception:
        logger.warning("guessing ahead failed; this step goes on without it", exc_info=True)
        return {}
    # a small model may have more rows of padding in its embedding than the large one
    return {name: list(itertools.takewhile(vocab_size.__gt__, guesses)) for name, guesses in proposed.items()}


class NgramDrafter:
    """Looks for the last few tokens earlier in the sequence and proposes what followed (prompt lookup).

    Costs nothing when it finds nothing; finds much where replies repeat their prompt: summaries, code, JSON.
    """

    def __init__(self, num_tokens: int = 8, ngram_sizes: SequenceOf[int] = (4, 3, 2)) -> None:
        self._num_tokens = num_tokens
        self._sizes = tuple(sorted(ngram_sizes, reverse=True))
        self._indexes: dict[str, _NgramIndex] = {}

    def propose(self, sequences: SequenceOf[Sequence]) -> dict[str, list[int]]:
        """What followed the last occurrence of the longest known n-gram."""
        proposals = {}
        for sequence in sequences:
            index = self._indexes.setdefault(sequence.sequence_id, _NgramIndex(self._sizes))
            position = index.find(sequence.tokens)
            if position is not None:
                proposals[sequence.sequence_id] = sequence.tokens[position : position + self._num_tokens]
        return proposals

    def forget(self, sequence: Sequence) -> None:
        """Drop the sequence's index."""
        self._indexes.pop(sequence.sequence_id, None)


class _NgramIndex:
    """Where each n-gram of one growing list of tokens was last followed by something."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self._sizes = tuple(sizes)
        self._follows: dict[tuple[int, ...], int] = {}
        self._indexed = 1

    def find(self, tokens: list[int]) -> int | None:
        """The place after the last earlier occurrence of the tokens' end."""
        for end in range(self._indexed, len(tokens)):
            for size in self._sizes:
                if size <= end:
                    self._follows[tuple(tokens[end - size : end])] = end
        self._indexed = max(self._indexed, len(tokens))
        for size in self._sizes:
            if size <= len(tokens):
                position = self._follows.get(tuple(tokens[-size:]))
                if position is not None:
                    return position
        return None


class ModelDrafter:
    """Proposes what a smaller model with the same vocabulary finds most likely.

    It reads along in chunks like the engine itself, and has no guesses for a sequence it has not caught up with, that
    outgrows its own window of `context_length` tokens, or for which its memory has no room.
    """

    def __init__(self, runner: Runner, context_length: int, num_tokens: int = 4) -> None:
        self._runner = runner
        self._context_length = context_length
        self._num_tokens = num_tokens
        self._shadows: dict[str, Sequence] = {}

    def propose(self, sequences: SequenceOf[Sequence]) -> dict[str, list[int]]:
        """Greedy continuations, all sequences in the same forward passes."""
        chunks = self._next_chunks(sequences)
        ready = [chunk.sequence for chunk in chunks if chunk.completes]
        for _ in range(self._num_tokens if chunks else 0):
            logits = self._runner.run(chunks)
            for chunk in chunks:
                chunk.sequence.num_computed += chunk.length
            for shadow, token_id in zip(ready, logits.argmax(-1).tolist(), strict=True):
                shadow.tokens.append(token_id)
            chunks = [Chunk(shadow, 1) for shadow in ready]
            if not chunks:
                break
        return {shadow.sequence_id: shadow.tokens[-self._num_tokens :] for shadow in ready}

    def forget(self, sequence: Sequence) -> None:
        """Free the sequence's memory in the small model."""
        shadow = self._shadows.pop(sequence.sequence_id, None)
        if shadow is not None:
            shadow.state.free()

    def _next_chunks(self, sequences: SequenceOf[Sequence]) -> list[Chunk]:
        """What the small model reads next, together at most one chunk: first what is nearest to being caught up with.

        Nobody who talks waits longer for it than for a chunk of the large model.
        """
        shadows = [shadow for sequence in sequences if (shadow := self._shadow(sequence)) is not None]
        left = self._runner.max_chunk_tokens or self._context_length
        chunks: list[Chunk] = []
        promised_bytes = 0
        for shadow in sorted(shadows, key=lambda s: s.num_pending):
            state, num_new = cast(SequenceKV, shadow.state), shadow.num_pending + self._num_tokens
            need_bytes = state.bytes_to_append(num_new)
            if left == 0 or not self._runner.budget.fits(promised_bytes + need_bytes):
                continue
            if state.length:
                # for the guesses too: storage that moves under them could not go back to what came true
                state.make_room(num_new)
            else:
                promised_bytes += need_bytes
            chunks.append(Chunk(shadow, min(left, shadow.num_pending)))
            left -= chunks[-1].length
        return chunks

    def _shadow(self, sequence: Sequence) -> Sequence | None:
        """The sequence in the small model, its own guesses replaced by what came true; None where it is too long."""
        if len(sequence.tokens) + self._num_tokens > self._context_length:
            self.forget(sequence)
            return None
        shadow = self._shadows.get(sequence.sequence_id)
        if shadow is None:
            request = TokenRequest(
                sequence.sequence_id, sequence.request.prompt_ids, sequence.request.options
            )
            state = self._runner.new_state(len(sequence.tokens) + self._num_tokens)
            shadow = Sequence(request, state, sequence.sampler, sequence.max_tokens)
            self._shadows[sequence.sequence_id] = shadow
        # at least the last token runs again: its logits are the first guess
        num_right = common_length(shadow.tokens, sequence.tokens[:-1])
        shadow.num_computed = min(shadow.num_computed, num_right)
        shadow.state.rollback(shadow.num_computed)
        shadow.tokens = list(sequence.tokens)
        return shadow
