"""The same prompts through our engine and through others in turn: decoding, reading prompts, many streams at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_local.bench.figures import decode_figures, median_of, memory_share, ratio, spread_of
from llm_local.bench.runners import ENGINE, Runner
from llm_local.bench.scenario import Column, Measured, Round, Summary, times_as_much

__all__ = ["Case", "Race"]

_DECODE: Final = "decode_tokens_per_s"
_PREFILL: Final = "prefill_tokens_per_s"

_COLUMNS: Final = {
    _DECODE: {
        _DECODE: Column("decode tok/s", digits=1),
        "spread": Column("spread %", 100),
        "itl_p50_s": Column("itl p50 ms", 1e3, 1),
        "itl_p95_s": Column("itl p95 ms", 1e3, 1),
        _PREFILL: Column("prefill tok/s"),
        "memory_share": Column("of memory %", 100),
        "peak_rss_bytes": Column("peak GB", 1e-9, 2),
    },
    _PREFILL: {
        _PREFILL: Column("prefill tok/s"),
        "spread": Column("spread %", 100),
        "ttft_p50_s": Column("ttft p50 ms", 1e3),
        "ttft_p95_s": Column("ttft p95 ms", 1e3),
        "peak_rss_bytes": Column("peak GB", 1e-9, 2),
    },
}
_VERBS: Final = {_DECODE: "decodes", _PREFILL: "reads"}


@dataclass(frozen=True, order=True)
class Case:
    """So many sequences at once, each with a prompt of so many tokens."""

    streams: int
    context: int

    def __str__(self) -> str:
        beside = "" if self.streams == 1 else f" and {self.streams} streams"
        return f"{self.context} tokens of context{beside}"


@dataclass(frozen=True, kw_only=True)
class Race(Measured):
    """`rounds_wanted` times, each of `cases` through each of `runners`, the first of which is our engine.

    More than one new token makes it a race of decoding, else it is one of reading prompts.
    """

    runners: tuple[Runner, ...]
    cases: tuple[Case, ...]
    new_tokens: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {
            "streams": tuple(sorted({case.streams for case in self.cases})),
            "context": tuple(sorted({case.context for case in self.cases})),
            "new_tokens": self.new_tokens,
            "rounds": self.rounds_wanted,
            "against": tuple(runner.name for runner in self.runners[1:]),
        }

    @property
    def peers(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each other program."""
        return {runner.name: runner.facts for runner in self.runners[1:]}

    def rounds(self) -> Iterator[Round]:
        """All runners in turn on the same prompts, after one short run of each that does not count."""
        for case in self.cases:
            self.subject.require_room(case.context, self.new_tokens)
        for runner in self.runners:
            runner.run([self.tokens(16, "warm")], 2)
        for index in range(self.rounds_wanted):
            for case in self.cases:
                prompts = [
                    self.tokens(case.context, f"{index}/{case.context}/{case.streams}/{number}")
                    for number in range(case.streams)
                ]
                for runner in self.runners:
                    speed = self.probe()
                    yield Round(index, runner.name, self._figures(runner, case, prompts, speed), speed)

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """A row for each case and runner: medians, and the median of the ratios of pairs."""
        rows = [
            self._row(rounds, case, runner.name)
            for case in self.cases
            for runner in self.runners
            if any(_is(one, runner.name, case) for one in rounds)
        ]
        columns = {"streams": Column("streams"), "context": Column("context"), "what": Column("runner")}
        columns |= _COLUMNS[self._focus]
        if len(self.runners) > 1:
            columns["ratio"] = Column(f"{ENGINE} is", digits=2)
        return Summary(columns, rows, self._verdict(rows))

    @property
    def _focus(self) -> str:
        return _DECODE if self.new_tokens > 1 else _PREFILL

    def _figures(
        self, runner: Runner, case: Case, prompts: Sequence[Sequence[int]], read_bytes_per_s: float
    ) -> dict[str, Any]:
        times = runner.run(prompts, self.new_tokens)
        figures = dataclasses.asdict(decode_figures(times, sum(map(len, prompts))))
        return {
            **dataclasses.asdict(case),
            **figures,
            "memory_share": self._memory_share(runner, case, figures[_DECODE], read_bytes_per_s),
            "peak_rss_bytes": runner.peak_rss_bytes(),
        }

    def _memory_share(
        self, runner: Runner, case: Case, tokens_per_s: float | None, read_bytes_per_s: float
    ) -> float | None:
        """What a step reads: the weights once, and the keys and values of every sequence, half of its reply long."""
        read_share = self.subject.read_share()
        if tokens_per_s is None or read_share is None or self.subject.info.device != "cpu":
            return None
        keys_and_values = runner.facts["kv_bytes_per_token"] * (case.context + self.new_tokens / 2)
        step = runner.facts["weight_bytes"] * read_share + case.streams * keys_and_values
        return memory_share(step, tokens_per_s / case.streams, read_bytes_per_s)

    def _row(self, rounds: Sequence[Round], case: Case, what: str) -> dict[str, Any]:
        mine = [one for one in rounds if _is(one, what, case)]
        row: dict[str, Any] = {**dataclasses.asdict(case), "what": what}
        names = [name for name in mine[0].figures if name not in row]
        row |= {name: median_of(one.figures[name] for one in mine) for name in names}
        row["spread"] = spread_of(one.figures[self._focus] for one in mine)
        if what != ENGINE:
            ours = {one.index: one.figures[self._focus] for one in rounds if _is(one, ENGINE, case)}
            row["ratio"] = median_of(ratio(ours.get(one.index), one.figures[self._focus]) for one in mine)
        return row

    def _verdict(self, rows: Sequence[Mapping[str, Any]]) -> str:
        ours = [row for row in rows if row["what"] == ENGINE and row[self._focus] is not None]
        if not ours:
            return "Nothing was measured."
        return " ".join(self._sentence(row, rows) for row in ours)

    def _sentence(self, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
        case = Case(row["streams"], row["context"])
        said = f"With {case} {ENGINE} {_VERBS[self._focus]} {row[self._focus]:,.1f} tokens/s"
        others = [
            f"{times_as_much(other['ratio'])} as fast as {other['what']}"
            for other in rows
            if other.get("ratio") is not None and Case(other["streams"], other["context"]) == case
        ]
        said += f": {' and '.join(others)}" if others else ""
        if self._focus == _DECODE and row["memory_share"] is not None:
            said += f"; {row['memory_share'] * 100:.0f} % of what the memory allows"
        return said + "."


def _is(one: Round, what: str, case: Case) -> bool:
    return one.what == what and Case(one.figures["streams"], one.figures["context"]) == case
