"""How likely each of several texts is to come next: a tree of token ids, scored node by node.

The probability of a text is the product of the probabilities of its tokens, each under all tokens before it. Texts
that begin alike share their nodes, and the first token of each is read off the prompt's own last logits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Sequence as SequenceOf

import torch

from llm_local.engine.protocol import ContinuationScores
from llm_local.sampling.sampler import check_finite

__all__ = ["Continuations"]

Path = tuple[int, ...]


class Continuations:
    """What is known, and what is still to be run, of the texts that a prompt may go on with.

    `end_ids` end a reply: with any, it is also scored that the reply ends right after each text. A path is the ids
    that lead from the prompt to a node of the tree.
    """

    def __init__(self, texts: SequenceOf[Path], end_ids: Collection[int] = ()) -> None:
        self._texts = texts
        self._end_ids = sorted(end_ids)
        self._next_ids: dict[Path, set[int]] = {}  # the tokens to be scored after a path
        for text in texts:
            for index, token_id in enumerate(text):
                self._next_ids.setdefault(text[:index], set()).add(token_id)
            if self._end_ids:
                self._next_ids.setdefault(text, set())
        # a pass along a path scores all nodes on it, so only the longest have to be run
        inner = {path[:-1] for path in self._next_ids if path}
        self._left = {path: None for path in self._next_ids if path and path not in inner}
        self._unscored = set(self._next_ids)
        self._logprobs: dict[Path, float] = {}
        self._end_logprobs: dict[Path, float] = {}
        self.num_tokens = 0
        self.num_passes = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(map(len, self._texts))

    @property
    def done(self) -> bool:
        """True when every text has its score."""
        return not self._unscored

    def pending(self) -> Iterator[Path]:
        """The paths that must still go through the model, behind the prompt."""
        yield from self._left

    def take_prompt(self, row: torch.Tensor) -> None:
        """Take the logits `[vocab]` after the prompt.

        Raises:
            NumericalError: they are not finite.
        """
        self._score((), row)

    def take(self, path: Path, rows: torch.Tensor) -> None:
        """Take the logits `[len(path), vocab]` after each token of a path.

        Raises:
            NumericalError: they are not finite.
        """
        for index, row in enumerate(rows):
            self._score(path[: index + 1], row)
        self._left.pop(path, None)
        self.num_tokens += len(path)

    def scores(self) -> ContinuationScores:
        """Everything, once `done`."""
        return ContinuationScores(
            logprobs=tuple(
                tuple(self._logprobs[text[: index + 1]] for index in range(len(text))) for text in self._texts
            ),
            end_logprobs=tuple(self._end_logprobs[text] for text in self._texts) if self._end_ids else (),
            num_tokens=self.num_tokens,
            num_passes=self.num_passes,
        )

    def _score(self, path: Path, row: torch.Tensor) -> None:
        if path not in self._unscored:
            return
        check_finite(row)
        log_probabilities = row.log_softmax(-1)
        for token_id in self._next_ids[path]:
            self._logprobs[*path, token_id] = float(log_probabilities[token_id])
        if self._end_ids and path:
            self._end_logprobs[path] = float(log_probabilities[self._end_ids].logsumexp(-1))
        self._unscored.discard(path)
