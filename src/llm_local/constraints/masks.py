"""One constrained sequence: which tokens may come next, known before the model asks."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from llm_local.constraints.json_numbers import NUMERIC, NumberLength
from llm_local.constraints.refusals import first_line, refusal
from llm_local.constraints.threads import MaskThreads
from llm_local.constraints.vocabulary import Vocabulary

__all__ = ["GrammarMask"]

_MINUS_INFINITY = np.float32(-np.inf).view(np.int32)


class GrammarMask:
    """Satisfies `engine.protocol.TokenMask`. `accept` starts the next mask on another thread and returns.

    The library works without the interpreter's lock, so masks are computed while the model's forward pass runs.
    A guess of a draft model needs no mask of its own: the engine samples, then compares, then accepts.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: Vocabulary,
        threads: MaskThreads,
        *,
        numbers: NumberLength | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`matcher` is at the start of its grammar and this mask's own. `numbers` bounds JSON numbers."""
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._threads = threads
        self._numbers = numbers
        self._on_failure = on_failure
        self._at_work = threading.Lock()
        self._next: NDArray[np.float32] | BaseException
        self._start(None)

    def allowed(self) -> Sequence[bool]:
        """A numpy array of float32 `[vocab]`, 0 for the allowed and minus infinity else, the caller's to keep.

        Raises:
            InvalidRequest: following the constraint became too complex, or led where nothing can follow.
        """
        with self._at_work:
            if isinstance(self._next, BaseException):
                raise self._next
            return cast("Sequence[bool]", self._next)

    def ready(self, seconds: float) -> bool:
        """True when the mask is there, or comes within so long."""
        there = self._at_work.acquire(timeout=seconds)
        if there:
            self._at_work.release()
        return there

    def accept(self, token_id: int) -> None:
        """Go on behind `token_id`, one of the allowed."""
        if token_id not in self._vocabulary.end_ids:
            self._start(token_id)

    def _start(self, token_id: int | None) -> None:
        self._at_work.acquire()  # given back by the thread that does the work
        self._threads.run(functools.partial(self._advance, token_id))

    def _advance(self, token_id: int | None) -> None:
        try:
            if token_id is not None:
                self._matcher.consume_token(token_id)
                if self._numbers is not None:
                    self._numbers.feed(self._vocabulary.tokenizer.decode_bytes([token_id]))
            self._next = self._compute()
        except BaseException as error:  # the library's panics are no Exception
            self._next = error
        finally:
            self._at_work.release()

    def _compute(self) -> NDArray[np.float32]:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            self._on_failure()
            reason = first_line(self._matcher.get_error())
            raise refusal(f"The constraint could not be followed to an end: {reason}.", "Make it simpler.")
        allowed = np.unpackbits(bits, count=self._vocabulary.size, bitorder="little").view(np.bool_)
        if self._numbers is not None and self._numbers.long_enough:
            self._keep_only(allowed, lambda token: not _goes_on(token))
        elif self._numbers is not None and self._numbers.in_exponent:
            self._keep_only(allowed, self._numbers.fits)
        # true to 0x00000000, which is 0.0, and false to 0xff800000, which is minus infinity
        return ((allowed.view(np.int8).astype(np.int32) - 1) & _MINUS_INFINITY).view(np.float32)

    def _keep_only(self, allowed: NDArray[np.bool_], fits: Callable[[bytes], bool]) -> None:
        """Leave only the tokens that fit, where there are any."""
        decode = self._vocabulary.tokenizer.decode_bytes
        kept = [token_id for token_id in np.flatnonzero(allowed).tolist() if fits(decode([token_id]))]
        if kept:
            allowed[:] = False
            allowed[kept] = True


def _goes_on(token: bytes) -> bool:
    return bool(token) and token[0] in NUMERIC
