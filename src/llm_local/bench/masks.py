"""What a constraint costs: one stream decodes freely, then under a JSON schema, in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from llm_local.bench.driving import drive, greedy_request
from llm_local.bench.figures import gaps, median_of, percentile, ratio
from llm_local.bench.peers.vocabulary import WordTokenizer
from llm_local.bench.scenario import Column, Measured, Round, Summary
from llm_local.engine.protocol import Engine, TokenMask
from llm_local.options import Constraint

__all__ = ["FREE", "UNDER_SCHEMA", "MasksScenario", "mask_maker"]

FREE: Final = "free"
UNDER_SCHEMA: Final = "JSON schema"

_COLUMNS: Final = {
    "what": Column("stream"),
    "decode_tokens_per_s": Column("decode tok/s", digits=1),
    "itl_p50_s": Column("itl p50 ms", 1e3, 2),
    "itl_p95_s": Column("itl p95 ms", 1e3, 2),
    "mask_share": Column("masks %", 1e2, 1),
}
# What tools and forms are made of, with no end before many thousand tokens.
_RECORD: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "count": {"type": "integer", "minimum": 0, "maximum": 9999},
        "price": {"type": "number", "minimum": 0, "maximum": 100},
        "state": {"enum": ["open", "closed", "waiting"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 4},
        "done": {"type": "boolean"},
    },
    "required": ["name", "count", "price", "state", "tags", "done"],
}
_SCHEMA: Final = {"type": "array", "items": _RECORD, "minItems": 10_000}


def mask_maker(vocab_size: int) -> Callable[[], TokenMask]:
    """Makes fresh masks of one schema over a vocabulary of that size, of words that mean nothing."""
    # Late: these load libraries that other scenarios do not need.
    from llm_local.constraints.compiler import ConstraintCompiler

    compiler = ConstraintCompiler(WordTokenizer(vocab_size), vocab_size, [vocab_size - 1])
    constraint = Constraint("json_schema", _SCHEMA)
    return lambda: compiler.mask(constraint)


@dataclass(frozen=True, kw_only=True)
class MasksScenario(Measured):
    """Each round: the same prompt and as many new tokens, once freely and once under the masks that `make_mask` makes.

    Who goes first changes from round to round.
    """

    engine: Engine
    make_mask: Callable[[], TokenMask]
    prompt_tokens: int
    new_tokens: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "vocab_size": self.subject.info.vocab_size,
            "rounds": self.rounds_wanted,
        }

    def rounds(self) -> Iterator[Round]:
        """Measure one stream, then the other."""
        self.subject.require_room(self.prompt_tokens, self.new_tokens)
        for what in (FREE, UNDER_SCHEMA):  # what is loaded and compiled once does not count
            self._round(-1, what)
        for index in range(self.rounds_wanted):
            order = (FREE, UNDER_SCHEMA) if index % 2 == 0 else (UNDER_SCHEMA, FREE)
            for what in order:
                yield self._round(index, what)

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """A row for each stream: medians over the rounds; the share is of the same round's two streams."""
        names = ("decode_tokens_per_s", "itl_p50_s", "itl_p95_s")
        rows: list[dict[str, Any]] = []
        for what in (FREE, UNDER_SCHEMA):
            mine = [one for one in rounds if one.what == what]
            if mine:
                rows.append({"what": what, **{n: median_of(one.figures[n] for one in mine) for n in names}})
        if len(rows) < 2:
            return Summary(_COLUMNS, rows, "Not both streams were measured.")
        free = {one.index: one.figures["decode_tokens_per_s"] for one in rounds if one.what == FREE}
        kept = [
            ratio(one.figures["decode_tokens_per_s"], free.get(one.index))
            for one in rounds
            if one.what == UNDER_SCHEMA
        ]
        rows[1]["mask_share"] = median_of(None if one is None else 1 - one for one in kept)
        verdict = f"Masks take {rows[1]['mask_share'] or 0:.1%} of the time of decoding under a JSON schema."
        return Summary(_COLUMNS, rows, verdict)

    def _round(self, index: int, what: str) -> Round:
        speed = self.probe()
        prompt = self.tokens(self.prompt_tokens, f"masks {index}")
        request = greedy_request(what, prompt, self.new_tokens)
        if what == UNDER_SCHEMA:
            request = replace(request, mask=self.make_mask())
        between = gaps(drive(self.engine, [request], self.clock).times.tokens_s[0])
        figures = {
            "decode_tokens_per_s": ratio(len(between), sum(between)),
            "itl_p50_s": percentile(between, 50) if between else None,
            "itl_p95_s": percentile(between, 95) if between else None,
        }
        return Round(index, what, figures, speed)
