"""How long a running stream waits for its next token while somebody else's long prompt is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_local.bench.driving import greedy_request
from llm_local.bench.figures import gaps, median_of, percentile
from llm_local.bench.scenario import Column, Measured, Round, Summary
from llm_local.engine.protocol import Engine, TokenStep

__all__ = ["BEFORE", "WHILE", "StallScenario"]

BEFORE: Final = "before"
WHILE: Final = "while reading"
# What the running stream has been asked: short, since only its next tokens matter.
_STREAM_PROMPT_TOKENS: Final = 64

_FIGURES: Final = {
    "num_gaps": Column("gaps"),
    "itl_p50_s": Column("itl p50 ms", 1e3, 1),
    "itl_p95_s": Column("itl p95 ms", 1e3, 1),
    "itl_max_s": Column("itl max ms", 1e3, 1),
    "prefill_s": Column("prompt read in s", digits=2),
}


@dataclass(frozen=True, kw_only=True)
class StallScenario(Measured):
    """Each round: a stream decodes `new_tokens`; then a prompt of `prompt_tokens` arrives, and it goes on beside it."""

    engine: Engine
    prompt_tokens: int
    new_tokens: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "rounds": self.rounds_wanted,
        }

    def rounds(self) -> Iterator[Round]:
        """Measure the gaps before and while the prompt is read."""
        self.subject.require_room(self.prompt_tokens, 1)
        self.subject.require_room(_STREAM_PROMPT_TOKENS + self.new_tokens, self.prompt_tokens)
        self.warm(self.engine)
        for index in range(self.rounds_wanted):
            speed = self.probe()
            before, during, prefill_s = self._measure(index)
            yield Round(index, BEFORE, {**_figures(before), "prefill_s": None}, speed)
            yield Round(index, WHILE, {**_figures(during), "prefill_s": prefill_s}, speed)

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """A row for each part: the medians over the rounds."""
        rows = [
            {"what": what, **{name: median_of(one.figures[name] for one in mine) for name in _FIGURES}}
            for what in (BEFORE, WHILE)
            if (mine := [one for one in rounds if one.what == what])
        ]
        columns = {"what": Column("running stream"), **_FIGURES}
        if len(rows) < 2:
            return Summary(columns, rows, "No prompt was read to its end.")
        before, during = rows
        verdict = (
            f"While {self.prompt_tokens} tokens were read for somebody else in {_number(during, 'prefill_s'):.1f} s, "
            f"the running stream waited {_number(during, 'itl_max_s') * 1e3:,.0f} ms for a token at most, "
            f"{_number(before, 'itl_max_s') * 1e3:,.0f} ms before."
        )
        return Summary(columns, rows, verdict)

    def _measure(self, index: int) -> tuple[list[float], list[float], float]:
        """The stream's gaps before, and while the long prompt is read, and how long that took."""
        stream = self.tokens(_STREAM_PROMPT_TOKENS, f"stream {index}")
        self.engine.submit(greedy_request("stream", stream, self.new_tokens + 1 + self.prompt_tokens))
        before = [self._next("stream")[0] for _ in range(self.new_tokens + 1)]
        arrived_s = self.clock()
        self.engine.submit(greedy_request("long", self.tokens(self.prompt_tokens, f"long {index}"), 1))
        during, read = [before[-1]], False
        while not read:
            moment, read = self._next("stream", until="long")
            during.append(moment)
        self.engine.cancel("stream")
        self.engine.step()
        return gaps(before), gaps(during), during[-1] - arrived_s

    def _next(self, sequence_id: str, *, until: str = "") -> tuple[float, bool]:
        """When the sequence's next token comes; True when `until` has ended by then."""
        came, ended = False, False
        while not came:
            steps = [step for step in self.engine.step() if isinstance(step, TokenStep)]
            for step in steps:
                if step.error is not None:
                    raise step.error
                came |= step.sequence_id == sequence_id
                ended |= step.sequence_id == until and step.last
        return self.clock(), ended


def _figures(between: Sequence[float]) -> dict[str, Any]:
    return {
        "num_gaps": len(between),
        "itl_p50_s": percentile(between, 50),
        "itl_p95_s": percentile(between, 95),
        "itl_max_s": max(between),
    }


def _number(row: Mapping[str, Any], name: str) -> float:
    return float(row[name] or 0.0)
