"""How soon a conversation's second turn begins, with the prefix cache and without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_local.bench.driving import drive, greedy_request
from llm_local.bench.figures import median_of, ratio
from llm_local.bench.scenario import Column, Measured, Round, Summary
from llm_local.engine.protocol import Engine

__all__ = ["WITH_CACHE", "WITHOUT_CACHE", "PrefixScenario"]

WITH_CACHE: Final = "prefix cache"
WITHOUT_CACHE: Final = "no cache"
# What a person adds in a turn: a short question.
_QUESTION_TOKENS: Final = 32

_COLUMNS: Final = {
    "what": Column("engine"),
    "prompt_tokens": Column("prompt tokens"),
    "cached_tokens": Column("cached"),
    "ttft_s": Column("ttft ms", 1e3, 1),
    "speedup": Column("times sooner", digits=1),
}


@dataclass(frozen=True, kw_only=True)
class PrefixScenario(Measured):
    """Each round: a fresh history of `history_tokens`, a reply, a short question; both engines in turn."""

    cached: Engine
    uncached: Engine
    history_tokens: int
    reply_tokens: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {
            "history_tokens": self.history_tokens,
            "reply_tokens": self.reply_tokens,
            "rounds": self.rounds_wanted,
        }

    def rounds(self) -> Iterator[Round]:
        """Measure the second turn on the engine with a cache, then on the one without, with the same tokens."""
        self.subject.require_room(self.history_tokens + self.reply_tokens + _QUESTION_TOKENS, 1)
        for engine in (self.cached, self.uncached):
            self.warm(engine)
        for index in range(self.rounds_wanted):
            history = self.tokens(self.history_tokens, f"history {index}")
            turn = drive(self.cached, [greedy_request("first", history, self.reply_tokens)], self.clock)
            question = self.tokens(_QUESTION_TOKENS, f"question {index}")
            second = (*history, *turn.token_ids[0], *question)
            yield self._round(index, WITH_CACHE, self.cached, second)
            yield self._round(index, WITHOUT_CACHE, self.uncached, second)

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """A row for each engine."""
        rows = [self._row(rounds, what) for what in (WITH_CACHE, WITHOUT_CACHE)]
        rows = [row for row in rows if row["ttft_s"] is not None]
        if len(rows) < 2:
            return Summary(_COLUMNS, rows, "No second turn was measured on both engines.")
        warm, cold = rows
        verdict = (
            f"With the prefix cache the second turn's first token comes {warm['speedup']:.1f} times sooner: "
            f"after {warm['ttft_s'] * 1e3:,.0f} ms instead of {cold['ttft_s'] * 1e3:,.0f} ms, because "
            f"{warm['cached_tokens']:.0f} of {warm['prompt_tokens']:.0f} tokens are not read again."
        )
        return Summary(_COLUMNS, rows, verdict)

    def _round(self, index: int, what: str, engine: Engine, prompt: Sequence[int]) -> Round:
        speed = self.probe()
        run = drive(engine, [greedy_request("second", prompt, 1)], self.clock)
        figures = {
            "ttft_s": run.times.tokens_s[0][0] - run.times.submitted_s[0],
            "prompt_tokens": len(prompt),
            "cached_tokens": run.reports[0].usage.cached_tokens,
        }
        return Round(index, what, figures, speed)

    @staticmethod
    def _row(rounds: Sequence[Round], what: str) -> dict[str, Any]:
        names = ("prompt_tokens", "cached_tokens", "ttft_s")
        mine = [one for one in rounds if one.what == what]
        row: dict[str, Any] = {"what": what}
        row |= {name: median_of(one.figures[name] for one in mine) for name in names}
        if what == WITH_CACHE:
            cold = {one.index: one.figures["ttft_s"] for one in rounds if one.what == WITHOUT_CACHE}
            row["speedup"] = median_of(ratio(cold.get(one.index), one.figures["ttft_s"]) for one in mine)
        return row
