"""Clients of the API server, side by side: what they get of it together, of others' servers, and without any server."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from llm_local.bench.figures import gaps, median_of, percentile, ratio, spread_of
from llm_local.bench.runners import ENGINE
from llm_local.bench.scenario import Column, Measured, Round, Summary, times_as_much

if TYPE_CHECKING:
    from llm_local.bench.sse_client import Answers

__all__ = ["CONTINUOUS", "IN_PROCESS", "Server", "ServeScenario", "random_text"]

CONTINUOUS: Final = "continuous"
"""The form of `--against transformers` that batches."""

IN_PROCESS: Final = "without HTTP"
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_SAMPLE_WORDS: Final = 400
_FIGURES: Final = {
    "tokens_per_s": Column("tok/s", digits=1),
    "spread": Column("spread %", 100),
    "ttft_p50_s": Column("ttft p50 ms", 1e3),
    "ttft_p95_s": Column("ttft p95 ms", 1e3),
    "itl_p50_s": Column("itl p50 ms", 1e3, 1),
    "itl_p95_s": Column("itl p95 ms", 1e3, 1),
    "prompt_tokens": Column("prompt tokens"),
    "completion_tokens": Column("new tokens"),
    "peak_rss_bytes": Column("peak GB", 1e-9, 2),
}


class Server(Protocol):
    """Something that answers texts."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What people should know of it."""

    def answer(self, prompts: Sequence[str], new_tokens: int) -> Answers:
        """The most likely `new_tokens` after each prompt, asked for at one moment by a client each."""

    def count(self, text: str) -> int:
        """How many tokens a prompt has."""

    def peak_rss_bytes(self) -> int:
        """The most memory its process has held so far."""


@dataclass(frozen=True, kw_only=True)
class ServeScenario(Measured):
    """Each round: for each number of clients all of `servers` in turn, with the same prompts.

    The first server is ours, the second (IN_PROCESS) what it computes with; which of the two goes first changes from
    round to round.
    """

    servers: tuple[Server, ...]
    clients: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""
        return {
            "clients": self.clients,
            "context": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "rounds": self.rounds_wanted,
            "against": tuple(server.name for server in self.servers[2:]),
        }

    @property
    def peers(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each other server."""
        return {server.name: server.facts for server in self.servers[2:]}

    def rounds(self) -> Iterator[Round]:
        """Measure, after a request to each that does not count: what is made ready by the first one is not measured."""
        self.subject.require_room(self.prompt_tokens, self.new_tokens)
        num_words = self._num_words()
        for server in self.servers:
            server.answer([random_text(num_words, "warm")], 4)
        for index in range(self.rounds_wanted):
            for clients in self.clients:
                prompts = [random_text(num_words, f"{index}/{clients}/{number}") for number in range(clients)]
                for server in self._order(index):
                    speed = self.probe()
                    answers = server.answer(prompts, self.new_tokens)
                    figures = {
                        "clients": clients,
                        **_figures(answers),
                        "peak_rss_bytes": server.peak_rss_bytes(),
                    }
                    yield Round(index, server.name, figures, speed)

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """A row for each number of clients and server: medians, and the median of the ratios of pairs."""
        rows = [
            self._row(rounds, clients, server.name)
            for clients in self.clients
            for server in self.servers
            if any(_is(one, server.name, clients) for one in rounds)
        ]
        columns = {"clients": Column("clients"), "what": Column("server"), **_FIGURES}
        columns["ratio"] = Column(f"{ENGINE} is", digits=2)
        said = [self._sentence(row, rows) for row in rows if row["what"] == ENGINE]
        return Summary(columns, rows, " ".join(said) or "Nothing was measured.")

    def _order(self, index: int) -> Sequence[Server]:
        ours, within, *others = self.servers
        return (ours, within, *others) if index % 2 == 0 else (within, ours, *others)

    def _num_words(self) -> int:
        """How many random words have about as many tokens as a prompt should have."""
        tokens = self.servers[1].count(random_text(_SAMPLE_WORDS, "sample"))
        return max(1, round(self.prompt_tokens * _SAMPLE_WORDS / tokens))

    @staticmethod
    def _row(rounds: Sequence[Round], clients: int, what: str) -> dict[str, Any]:
        mine = [one for one in rounds if _is(one, what, clients)]
        row: dict[str, Any] = {"clients": clients, "what": what}
        row |= {name: median_of(one.figures[name] for one in mine) for name in _FIGURES if name != "spread"}
        row["spread"] = spread_of(one.figures["tokens_per_s"] for one in mine)
        if what != ENGINE:
            ours = {one.index: one.figures["tokens_per_s"] for one in rounds if _is(one, ENGINE, clients)}
            row["ratio"] = median_of(ratio(ours.get(one.index), one.figures["tokens_per_s"]) for one in mine)
        return row

    @staticmethod
    def _sentence(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
        clients = row["clients"]
        beside = {one["what"]: one["ratio"] for one in rows if one["clients"] == clients and one.get("ratio")}
        within = beside.pop(IN_PROCESS, None)
        who = "One client gets" if clients == 1 else f"{clients:.0f} clients get"
        said = f"{who} {row['tokens_per_s']:,.1f} tokens/s from {ENGINE}"
        others = [f"{times_as_much(factor)} as many as from {name}" for name, factor in beside.items()]
        said += f": {' and '.join(others)}" if others else ""
        if within is not None:
            said += f"; HTTP takes {(1 - within) * 100:.1f} % of what there is without it"
        return said + "."


def random_text(num_words: int, seed: str) -> str:
    """Words that mean nothing, always the same for a seed."""
    draw = random.Random(seed)  # noqa: S311  (nothing is kept secret)
    return " ".join("".join(draw.choices(_LETTERS, k=draw.randint(2, 9))) for _ in range(num_words))


def _figures(answers: Answers) -> dict[str, Any]:
    """`tokens_per_s` from when all clients begin until the last one has its answer; tokens as the servers count them.

    `itl_p50_s` is the time of an answer behind its first text, for each token; `itl_p95_s` of the gaps between pieces.
    """
    each = answers.each
    ttft = [one.text_s[0] for one in each]
    paces = [
        (one.end_s - one.text_s[0]) / (one.completion_tokens - 1) for one in each if one.completion_tokens > 1
    ]
    between = [gap for one in each for gap in gaps(one.text_s)]
    return {
        "tokens_per_s": ratio(sum(one.completion_tokens for one in each), answers.seconds),
        "ttft_p50_s": percentile(ttft, 50),
        "ttft_p95_s": percentile(ttft, 95),
        "itl_p50_s": percentile(paces, 50) if paces else None,
        "itl_p95_s": percentile(between, 95) if between else None,
        "prompt_tokens": sum(one.prompt_tokens for one in each) / len(each),
        "completion_tokens": sum(one.completion_tokens for one in each) / len(each),
    }


def _is(one: Round, what: str, clients: int) -> bool:
    return one.what == what and one.figures["clients"] == clients
