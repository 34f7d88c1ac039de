"""Constraints and reasoning together: a model thinks freely, within a budget, and its answer is constrained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mask", "Reasoning", "ReasoningGate", "ids_beyond"]

_LONGEST_TOKEN: Final = 256
_NEVER: Final = np.float32("-inf")


class Mask(Protocol):
    """A mask as the engine knows it (`engine.protocol.TokenMask`)."""

    def allowed(self) -> Sequence[bool] | Sequence[float]:
        """Which ids may come next, `[vocab]`: booleans, or 0 for the allowed and minus infinity else."""

    def ready(self, seconds: float) -> bool:
        """True when `allowed` answers at once; waits for that at most so long."""

    def accept(self, token_id: int) -> None:
        """Go on behind `token_id`."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How a model's reasoning is recognized, and ended.

    `piece` is the text of one id, control tokens too; `open_ids` and `close_ids` spell the tags, and the layout around
    them. `opened` says that the prompt ends in the opening one. `always` makes a model reason that has no other way to
    begin its answer; `again` says that it may go back to reasoning, for which the same budget holds. `beyond` are the
    ids of `ids_beyond`, in which no constrained answer can begin.
    """

    piece: Callable[[int], str]
    opens: str
    closes: str
    open_ids: tuple[int, ...]
    close_ids: tuple[int, ...]
    opened: bool = False
    always: bool = False
    again: bool = False
    max_tokens: int | None = None
    beyond: Mapping[int, Sequence[int]] = field(default_factory=dict)


def ids_beyond(closes: str, pieces: Iterable[tuple[int, str]]) -> dict[int, list[int]]:
    """The ids that end a tag and go on behind it, by how many characters of the tag must be there before them."""
    beyond: dict[int, list[int]] = {}
    for token_id, piece in pieces:
        if closes in piece and not piece.endswith(closes):
            beyond.setdefault(0, []).append(token_id)
        for there in range(1, len(closes)):
            rest = closes[there:]
            if piece.startswith(rest) and piece != rest:
                beyond.setdefault(there, []).append(token_id)
    return beyond


class ReasoningGate:
    """Satisfies `engine.protocol.TokenMask`. In order: reasoning if there is any, `lead_ids`, then what `inner` allows.

    While the model reasons everything is allowed, but the reply cannot end where an answer is promised. At the limit of
    the reasoning its closing tag is the only thing allowed. Whether a model that need not reason does is left to it.
    """

    def __init__(
        self,
        inner: Mask | None,
        size: int,
        end_ids: Collection[int],
        *,
        reasoning: Reasoning | None = None,
        lead_ids: Sequence[int] = (),
    ) -> None:
        """`size` is the width of the model's logits; `lead_ids` begin the answer, before `inner` sees any of it."""
        self._inner = inner
        self._size = size
        self._end_ids = [token_id for token_id in end_ids if token_id < size]
        self._reasoning = reasoning
        self._lead = list(lead_ids)
        self._forced: list[int] = []
        self._state: Literal["start", "reasoning", "answer"] = "answer"
        self._tail = ""  # the last text, as far as a tag may reach into it
        self._num_tokens = 0  # of reasoning
        self._whole: NDArray[np.float32] | None = None
        self._endless: NDArray[np.float32]
        if reasoning is not None:
            self._state = "reasoning" if reasoning.opened else "start"
            if reasoning.always and not reasoning.opened:
                self._forced = list(reasoning.open_ids)
            self._check_budget(reasoning)

    def allowed(self) -> Sequence[bool] | Sequence[float]:
        """A float32 array `[vocab]` to read, 0 for the allowed and minus infinity else; or what `inner` says."""
        if self._forced:
            return self._only(self._forced[0])
        if self._state == "reasoning":
            constrained = self._inner is not None or bool(self._lead)
            free = self._free(may_end=not constrained)
            return self._ending(free, self._reasoning) if constrained and self._reasoning else free
        answer = self._answer_allowed()
        if self._state != "start" or self._reasoning is None:
            return answer
        either = np.array(answer)  # a copy: the mask's own is not ours to change
        if either.dtype == np.bool_:
            either = np.where(either, np.float32(0), _NEVER)
        either[self._reasoning.open_ids[0]] = 0
        return cast("Sequence[float]", either)

    def ready(self, seconds: float) -> bool:
        """True unless it is for `inner` to say what comes next, and that is late."""
        asked = not (self._forced or self._lead) and self._state != "reasoning"
        return not asked or self._inner is None or self._inner.ready(seconds)

    def accept(self, token_id: int) -> None:
        """Go on behind `token_id`, one of the allowed."""
        forced = bool(self._forced)
        if forced:
            self._forced.pop(0)
        if self._state == "answer" or self._reasoning is None:
            self._accept_answer(token_id)
        elif self._state == "start":
            self._accept_start(token_id, self._reasoning, forced=forced)
        else:
            self._accept_reasoning(token_id, self._reasoning, forced=forced)

    def _accept_start(self, token_id: int, reasoning: Reasoning, *, forced: bool) -> None:
        constrained = self._inner is not None or bool(self._lead)
        if constrained and not forced and token_id == reasoning.open_ids[0]:
            self._forced = list(reasoning.open_ids[1:])
        elif constrained and not forced:
            self._state = "answer"
            self._accept_answer(token_id)
            return
        self._tail += reasoning.piece(token_id)
        if reasoning.opens in self._tail:
            self._state, self._tail = "reasoning", self._tail.partition(reasoning.opens)[2]
            self._check_budget(reasoning)
        elif not reasoning.opens.startswith(self._tail.lstrip()):
            self._state = "answer"

    def _accept_reasoning(self, token_id: int, reasoning: Reasoning, *, forced: bool) -> None:
        self._tail = (self._tail + reasoning.piece(token_id))[-_LONGEST_TOKEN - len(reasoning.closes) :]
        self._num_tokens += 1
        if not self._forced and (forced or reasoning.closes in self._tail):
            self._state, self._tail = "answer", ""
        elif not forced:
            self._check_budget(reasoning)

    def _accept_answer(self, token_id: int) -> None:
        if self._lead:
            self._lead.pop(0)
        elif self._inner is not None:
            self._inner.accept(token_id)
        elif self._reasoning is not None and self._reasoning.again:
            self._reopen(token_id, self._reasoning)

    def _reopen(self, token_id: int, reasoning: Reasoning) -> None:
        self._tail = (self._tail + reasoning.piece(token_id))[-_LONGEST_TOKEN - len(reasoning.opens) :]
        if reasoning.opens in self._tail:
            self._state, self._tail = "reasoning", self._tail.rpartition(reasoning.opens)[2]
            self._check_budget(reasoning)

    def _check_budget(self, reasoning: Reasoning) -> None:
        limit = reasoning.max_tokens
        if self._state == "reasoning" and limit is not None and self._num_tokens >= limit:
            self._forced = list(reasoning.close_ids)

    def _answer_allowed(self) -> Sequence[bool] | Sequence[float]:
        if self._lead:
            return self._only(self._lead[0])
        return self._free(may_end=True) if self._inner is None else self._inner.allowed()

    def _ending(self, free: Sequence[float], reasoning: Reasoning) -> Sequence[float]:
        """Without the ids that would end the reasoning and begin an answer that nobody has constrained."""
        late = [
            token_id
            for there, ids in reasoning.beyond.items()
            if self._tail.endswith(reasoning.closes[:there])
            for token_id in ids
            if token_id < self._size
        ]
        if not late:
            return free
        left = np.array(free, dtype=np.float32)
        left[late] = _NEVER
        return cast("Sequence[float]", left)

    def _only(self, token_id: int) -> Sequence[float]:
        allowed = np.full(self._size, _NEVER)
        allowed[token_id] = 0
        return cast("Sequence[float]", allowed)

    def _free(self, *, may_end: bool) -> Sequence[float]:
        if self._whole is None:  # asked for at every token of the reasoning
            self._whole = np.zeros(self._size, dtype=np.float32)
            self._endless = self._whole.copy()
            self._endless[self._end_ids] = _NEVER
        return cast("Sequence[float]", self._whole if may_end else self._endless)
