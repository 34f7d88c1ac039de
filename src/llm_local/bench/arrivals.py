"""Requests that arrive one after the other, as people send them: how long each waits, and what all get together."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from llm_local.bench.driving import Run, drive, greedy_request
from llm_local.bench.figures import gaps, median_of, percentile, ratio
from llm_local.bench.machine import peak_rss_bytes
from llm_local.bench.runners import ENGINE
from llm_local.bench.scenario import Column, Measured, Round, Summary
from llm_local.engine.protocol import Engine

__all__ = ["ArrivalsScenario", "arrival_times"]

_COLUMNS: Final = {
    "tokens_per_s": Column("tok/s", digits=1),
    "ttft_p50_s": Column("ttft p50 ms", 1e3),
    "ttft_p95_s": Column("ttft p95 ms", 1e3),
    "itl_p50_s": Column("itl p50 ms", 1e3, 1),
    "itl_p95_s": Column("itl p95 ms", 1e3, 1),
    "queued_p50_s": Column("queued p50 ms", 1e3),
    "queued_p95_s": Column("queued p95 ms", 1e3),
    "waiting_max": Column("longest queue"),
    "kv_bytes": Column("K/V MB", 1e-6, 1),
    "peak_rss_bytes": Column("peak GB", 1e-9, 2),
}


@dataclass(frozen=True, kw_only=True)
class ArrivalsScenario(Measured):
    """Each round: `num_requests` prompts of `prompt_tokens` arrive at random, `rate` a second on average."""

    engine: Engine
    prompt_tokens: int
    new_tokens: int
    num_requests: int
    rate: float
    sleep: Callable[[float], None] = time.sleep

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {
            "rate": self.rate,
            "requests": self.num_requests,
            "context": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "rounds": self.rounds_wanted,
        }

    def rounds(self) -> Iterator[Round]:
        """Other prompts and other moments in each round, always the same for its number."""
        self.subject.require_room(self.prompt_tokens, self.new_tokens)
        self.warm(self.engine)
        for index in range(self.rounds_wanted):
            speed = self.probe()
            requests = [
                greedy_request(
                    str(number), self.tokens(self.prompt_tokens, f"{index}/{number}"), self.new_tokens
                )
                for number in range(self.num_requests)
            ]
            arrivals = arrival_times(self.num_requests, self.rate, f"arrivals {index}")
            run = drive(self.engine, requests, self.clock, arrivals, self.sleep)
            yield Round(index, ENGINE, _figures(run), speed)

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """One row: the medians over the rounds."""
        if not rounds:
            return Summary(_COLUMNS, [], "Nothing was measured.")
        row = {name: median_of(one.figures[name] for one in rounds) for name in _COLUMNS}
        verdict = (
            f"With {self.rate:g} requests/s arriving, half of them had their first token within "
            f"{_milliseconds(row, 'ttft_p50_s')} and 95 % within {_milliseconds(row, 'ttft_p95_s')}; "
            f"all together got {row['tokens_per_s'] or 0:,.1f} tokens/s, and {row['waiting_max'] or 0:.0f} waited "
            "in line at most."
        )
        return Summary(_COLUMNS, [row], verdict)


def arrival_times(count: int, rate: float, seed: str) -> tuple[float, ...]:
    """When each of `count` requests comes, in seconds from the first: a Poisson process of `rate` a second."""
    draw = random.Random(seed)  # noqa: S311  (nothing is kept secret)
    return tuple(accumulate((draw.expovariate(rate) for _ in range(count - 1)), initial=0.0))


def _figures(run: Run) -> dict[str, Any]:
    """`tokens_per_s` from the first arrival to the last token; `queued_*` until a step took the prompt up."""
    times = run.times
    ttft = [tokens[0] - arrived for tokens, arrived in zip(times.tokens_s, times.submitted_s, strict=True)]
    between = [gap for tokens in times.tokens_s for gap in gaps(tokens)]
    queued = [report.timings.queued_s for report in run.reports]
    seconds = max(tokens[-1] for tokens in times.tokens_s) - times.submitted_s[0]
    return {
        "tokens_per_s": ratio(sum(map(len, times.tokens_s)), seconds),
        "ttft_p50_s": percentile(ttft, 50),
        "ttft_p95_s": percentile(ttft, 95),
        "itl_p50_s": percentile(between, 50) if between else None,
        "itl_p95_s": percentile(between, 95) if between else None,
        "queued_p50_s": percentile(queued, 50),
        "queued_p95_s": percentile(queued, 95),
        "waiting_max": run.waiting,
        "kv_bytes": run.kv_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _milliseconds(row: Mapping[str, Any], name: str) -> str:
    return f"{(row[name] or 0) * 1e3:,.0f} ms"
