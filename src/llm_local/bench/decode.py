"""How many tokens a second come out of sequences side by side, alone or beside another implementation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_local.bench.driving import Clock, Peer, Subject, drive, greedy_request, random_prompt
from llm_local.bench.figures import TokenTimes, decode_figures, median_of, ratio
from llm_local.bench.scenario import Column, Round, Summary, times_as_much
from llm_local.engine.protocol import Engine

__all__ = ["ENGINE", "DecodeScenario"]

ENGINE: Final = "llm-local"

_MEDIANS: Final = {
    "decode_tokens_per_s": Column("decode tok/s", digits=1),
    "prefill_tokens_per_s": Column("prefill tok/s"),
    "ttft_p50_s": Column("ttft p50 ms", 1e3),
    "ttft_p95_s": Column("ttft p95 ms", 1e3),
    "itl_p50_s": Column("itl p50 ms", 1e3, 1),
    "itl_p95_s": Column("itl p95 ms", 1e3, 1),
    "kv_bytes": Column("K/V MB", 1e-6, 1),
}


@dataclass(frozen=True)
class DecodeScenario:
    """`rounds_wanted` times, for each of `sequences`: that many prompts at once through the engine, then the peer."""

    subject: Subject
    engine: Engine
    sequences: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int
    rounds_wanted: int
    probe: Callable[[], float]
    peer: Peer | None = None
    peer_name: str = ""
    clock: Clock = time.perf_counter

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {
            "sequences": self.sequences,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "rounds": self.rounds_wanted,
            "against": self.peer_name,
        }

    def rounds(self) -> Iterator[Round]:
        """Engine and peer in turn, on the same prompts, after one short run of each that does not count."""
        self.subject.require_room(self.prompt_tokens, self.new_tokens)
        warm = [random_prompt(16, self.subject.info.vocab_size, "warm")]
        self._engine_figures(warm, 2)
        if self.peer is not None:
            self._peer_figures(self.peer, warm, 2)
        for index in range(self.rounds_wanted):
            for count in self.sequences:
                prompts = [self._prompt(f"{index}/{count}/{number}") for number in range(count)]
                speed = self.probe()
                yield self._round(index, ENGINE, count, self._engine_figures(prompts, self.new_tokens), speed)
                if self.peer is not None:
                    speed = self.probe()
                    found = self._peer_figures(self.peer, prompts, self.new_tokens)
                    yield self._round(index, self.peer_name, count, found, speed)

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """A row for each number of sequences and each runner: medians, and the median of the ratios of pairs."""
        rows = [
            self._row(rounds, count, what)
            for count in self.sequences
            for what in (ENGINE, self.peer_name)
            if any(_is(one, what, count) for one in rounds)
        ]
        columns = {"sequences": Column("sequences"), "what": Column("runner"), **_MEDIANS}
        if self.peer is not None:
            columns["decode_ratio"] = Column(f"decode vs {self.peer_name}", digits=2)
            columns["prefill_ratio"] = Column(f"prefill vs {self.peer_name}", digits=2)
        return Summary(columns, rows, self._verdict(rows))

    def _prompt(self, seed: str) -> tuple[int, ...]:
        return random_prompt(self.prompt_tokens, self.subject.info.vocab_size, seed)

    @staticmethod
    def _round(index: int, what: str, count: int, figures: dict[str, Any], speed: float) -> Round:
        return Round(index, what, {"sequences": count, **figures}, speed)

    def _engine_figures(self, prompts: Sequence[tuple[int, ...]], num_new: int) -> dict[str, Any]:
        requests = [greedy_request(str(number), prompt, num_new) for number, prompt in enumerate(prompts)]
        run = drive(self.engine, requests, self.clock)
        figures = decode_figures(run.times, sum(map(len, prompts)))
        return {**dataclasses.asdict(figures), "kv_bytes": run.kv_bytes}

    def _peer_figures(self, peer: Peer, prompts: Sequence[tuple[int, ...]], num_new: int) -> dict[str, Any]:
        moments: list[float] = []
        submitted_s = self.clock()
        peer.generate(prompts, num_new, lambda: moments.append(self.clock()))
        times = TokenTimes(submitted_s, (tuple(moments),) * len(prompts))
        return dataclasses.asdict(decode_figures(times, sum(map(len, prompts))))

    def _row(self, rounds: Sequence[Round], count: int, what: str) -> dict[str, Any]:
        mine = [one for one in rounds if _is(one, what, count)]
        row: dict[str, Any] = {"sequences": count, "what": what}
        row |= {name: median_of(one.figures.get(name) for one in mine) for name in _MEDIANS}
        if what == ENGINE:
            pairs = [
                (one, other)
                for one in mine
                for other in rounds
                if _is(other, self.peer_name, count) and one.index == other.index
            ]
            for name in ("decode", "prefill"):
                key = f"{name}_tokens_per_s"
                row[f"{name}_ratio"] = median_of(ratio(a.figures[key], b.figures[key]) for a, b in pairs)
        return row

    def _verdict(self, rows: Sequence[Mapping[str, Any]]) -> str:
        ours = [row for row in rows if row["what"] == ENGINE and row["decode_tokens_per_s"]]
        if not ours:
            return "No decoding was measured: ask for more new tokens."
        first, last = ours[0], ours[-1]
        said = f"{ENGINE} decodes {first['decode_tokens_per_s']:.1f} tokens/s with {_count(first)}"
        if last is not first:
            more = ratio(last["decode_tokens_per_s"], first["decode_tokens_per_s"])
            said += (
                f" and {last['decode_tokens_per_s']:.1f} with {_count(last)}, {times_as_much(more)} as many"
            )
        against = ", ".join(
            f"{times_as_much(row['decode_ratio'])} as many with {_count(row)}"
            for row in ours
            if row["decode_ratio"]
        )
        return f"{said}." + (f" Against {self.peer_name} it decodes {against}." if against else "")


def _is(one: Round, what: str, count: int) -> bool:
    return one.what == what and one.figures["sequences"] == count


def _count(row: Mapping[str, Any]) -> str:
    return f"{row['sequences']} sequence{'' if row['sequences'] == 1 else 's'}"
