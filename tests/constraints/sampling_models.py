"""A model that knows nothing: random logits under a mask, for one sequence or many at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm_local.constraints.compiler import ConstraintCompiler
from llm_local.options import Constraint


@dataclass(frozen=True)
class Reply:
    """Ids without the end token, their text, and whether the reply ended by itself."""

    token_ids: list[int]
    text: str
    ended: bool


class RandomModel:
    """Draws each token by random logits among those the mask allows."""

    def __init__(self, tokenizer, vocab_size: int, end_ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.end_ids = frozenset(end_ids)
        self.compiler = ConstraintCompiler(tokenizer, vocab_size, end_ids)
        self.vocab_size = vocab_size

    def reply(self, constraint: Constraint, seed: int, max_new: int = 400) -> Reply:
        """One reply alone."""
        return self.replies([(constraint, seed)], max_new)[0]

    def replies(self, jobs: Sequence[tuple[Constraint, int]], max_new: int = 400) -> list[Reply]:
        """Replies side by side, a token each in turn."""
        masks = [self.compiler.mask(constraint) for constraint, _ in jobs]
        draws = [random.Random(seed) for _, seed in jobs]
        replies: list[list[int]] = [[] for _ in jobs]
        going = set(range(len(jobs)))
        for _ in range(max_new):
            for number in sorted(going):
                allowed = np.asarray(masks[number].allowed()) == 0
                assert allowed.shape == (self.vocab_size,)
                choices = np.flatnonzero(allowed)
                token_id = int(choices[draws[number].randrange(len(choices))])
                masks[number].accept(token_id)
                if token_id in self.end_ids:
                    going.discard(number)
                else:
                    replies[number].append(token_id)
        return [Reply(ids, self.text(ids), number not in going) for number, ids in enumerate(replies)]

    def text(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
