"""Constraints of one model: compiled once, kept within bounds, handed out as masks."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from llm_local.constraints.alternatives import Alternative, either_grammar
from llm_local.constraints.deadline import run_with_deadline
from llm_local.constraints.grammars import CallGrammar, to_grammar
from llm_local.constraints.json_numbers import NumberLength
from llm_local.constraints.json_schemas import guilty_place
from llm_local.constraints.masks import GrammarMask
from llm_local.constraints.refusals import first_line, refusal
from llm_local.constraints.threads import MaskThreads
from llm_local.constraints.vocabulary import Vocabulary, make_vocabulary
from llm_local.errors import InvalidRequest
from llm_local.options import Constraint

__all__ = ["ConstraintCompiler", "check_constraint"]

COMPILE_SECONDS: Final = 2.0
MAX_ENTRIES: Final = 64
MAX_BYTES: Final = 4 * 1024**2  # of grammar text; compiled, it takes up to 40 times that
MASK_THREADS: Final = 4
NUM_BYTES: Final = 256
_NOTHING_ALLOWED: Final = "NoExtensionBias"  # the library's word for it, which says no more than ours
# The library's own limits: fewer states (2 kB each), and rows for a thousand optional properties.
LIMITS: Final = LLParserLimits(max_lexer_states=20_000, max_items_in_row=10_000, verbose_errors=False)


@dataclass(frozen=True, slots=True)
class _Compiled:
    matcher: LLMatcher
    num_bytes: int


_Key = tuple[Constraint | CallGrammar, Alternative | None]


class ConstraintCompiler:
    """Compiles on the caller's side, never in the engine. Safe to use from several threads."""

    def __init__(self, tokenizer: Any, vocab_size: int, end_token_ids: Collection[int]) -> None:
        """`vocab_size` is the width of the model's logits; `end_token_ids` are those that end its replies."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_token_ids = end_token_ids
        self._vocabulary: Vocabulary | None = None
        self._lock = threading.Lock()
        self._cache: OrderedDict[_Key, _Compiled] = OrderedDict()
        self._threads = MaskThreads(min(MASK_THREADS, os.cpu_count() or 1))

    def mask(self, constraint: Constraint | CallGrammar, other: Alternative | None = None) -> GrammarMask:
        """A fresh mask for one sequence, whose reply may go the `other` way instead.

        JSON numbers end by themselves, in the answer and in calls.

        Raises:
            InvalidRequest: the constraint cannot be enforced, is satisfied by nothing, or is too large.
            UnsupportedTask: the model has no end token or no tokenizer that can be constrained.
            Busy: too many others are being compiled.
        """
        vocabulary = self._known_vocabulary()
        key = (constraint, other)
        with self._lock:
            compiled = self._cache.get(key)
            if compiled is not None:
                self._cache.move_to_end(key)
        if compiled is None:
            compiled = run_with_deadline(lambda: _compile(key, vocabulary), COMPILE_SECONDS)
            self._keep(key, compiled)
        bound_numbers = _is_json(constraint) or (other is not None and other.body.is_json)
        return GrammarMask(
            compiled.matcher.deep_copy(),
            vocabulary,
            self._threads,
            numbers=NumberLength() if bound_numbers else None,
            on_failure=lambda: self._forget(key),
        )

    def _known_vocabulary(self) -> Vocabulary:
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = make_vocabulary(self._tokenizer, self._vocab_size, self._end_token_ids)
            return self._vocabulary

    def _keep(self, key: _Key, compiled: _Compiled) -> None:
        with self._lock:
            self._cache[key] = compiled
            while (
                len(self._cache) > MAX_ENTRIES or sum(c.num_bytes for c in self._cache.values()) > MAX_BYTES
            ):
                self._cache.popitem(last=False)

    def _forget(self, key: _Key) -> None:
        """Copies share what they learn of a grammar: one that met a limit would meet it again at once."""
        with self._lock:
            self._cache.pop(key, None)


def check_constraint(constraint: Constraint) -> None:
    """Refuse before a model is loaded what no model could be made to keep.

    Raises:
        InvalidRequest: the constraint cannot be enforced.
    """

    # over bytes, of which every vocabulary is made
    vocabulary = Vocabulary(LLTokenizer("byte"), NUM_BYTES, frozenset())
    run_with_deadline(lambda: _compile((constraint, None), vocabulary), COMPILE_SECONDS)


def _compile(key: _Key, vocabulary: Vocabulary) -> _Compiled:
    constraint, other = key
    grammar = to_grammar(constraint) if other is None else either_grammar(constraint, other)
    matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=LIMITS)
    if matcher.is_error():
        raise _not_kept(constraint, matcher.get_error(), "cannot be compiled")
    warnings = matcher.get_grammar_warnings()
    if warnings:
        raise _not_kept(constraint, warnings[0], "cannot be kept in full")
    # a trial, so that what nothing satisfies and what is too complex at once is known before it is queued
    trial = matcher.deep_copy()
    trial.compute_bitmask()
    if trial.is_error():
        raise _not_kept(constraint, trial.get_error(), "can be satisfied by no reply")
    return _Compiled(matcher, len(grammar) + sum(map(len, constraint.choices)))


def _is_json(constraint: Constraint | CallGrammar) -> bool:
    if isinstance(constraint, CallGrammar):
        return constraint.is_json
    return constraint.kind in ("json", "json_schema")


def _not_kept(constraint: Constraint | CallGrammar, reason: str, what: str) -> InvalidRequest:
    hint = "Use anyOf for alternatives that may overlap." if "oneOf" in reason else ""
    told = first_line(reason)
    if constraint.kind == "json_schema":
        place = guilty_place(json.loads(constraint.choices[0]), reason)
        told = f"{told}, at {place}" if place else told
    elif constraint.kind not in ("grammar", "gbnf", "lark"):  # no lines of the caller's
        told = re.sub(r"^line \d+, column \d+: ", "", told)
    because = "" if told == _NOTHING_ALLOWED else f": {told}"
    return refusal(f"The {constraint.kind} constraint {what}{because}.", hint)
