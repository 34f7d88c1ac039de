"""What the scenarios have in common: rounds that are measured one by one, and what they come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llm_local.bench.driving import Clock, drive, greedy_request, random_prompt
from llm_local.bench.subjects import Subject
from llm_local.engine.protocol import Engine

__all__ = ["Column", "Measured", "Round", "Scenario", "Summary", "times_as_much"]


@dataclass(frozen=True, slots=True)
class Column:
    """How people see one figure: its title with the unit, what it is multiplied by, and its digits."""

    title: str
    scale: float = 1.0
    digits: int = 0

    def show(self, value: Any) -> str:
        """The value as text; a figure that was not measured is a dash."""
        if value is None:
            return "-"
        return value if isinstance(value, str) else f"{value * self.scale:,.{self.digits}f}"


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement. `figures` by name, in seconds, bytes and tokens; `read_bytes_per_s` is the probe before it."""

    index: int
    what: str
    figures: Mapping[str, Any]
    read_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the rounds, one row for each thing compared, and what they say in words."""

    columns: Mapping[str, Column]
    rows: Sequence[Mapping[str, Any]]
    verdict: str


class Scenario(Protocol):
    """A measurement that can be broken off after any round."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was asked for."""

    @property
    def runs_as(self) -> str:
        """What computes our forward passes."""

    @property
    def peers(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known of each program that it compares with, by name."""

    def rounds(self) -> Iterator[Round]:
        """Measure, one round after the other."""

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """What `rounds` come to, all or as many as there are."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The head of every scenario: the model, how often, the probe to call before each measurement, and the clock.

    `runs_as` says what computes the forward passes, for people.
    """

    subject: Subject
    rounds_wanted: int
    probe: Callable[[], float]
    clock: Clock = time.perf_counter
    runs_as: str = ""

    @property
    def peers(self) -> Mapping[str, Mapping[str, Any]]:
        """None, unless a scenario has some."""
        return {}

    def tokens(self, count: int, seed: str) -> tuple[int, ...]:
        """A random prompt, always the same for a seed."""
        return random_prompt(count, self.subject.info.vocab_size, seed)

    def warm(self, engine: Engine) -> None:
        """One short run that does not count."""
        drive(engine, [greedy_request("warm", self.tokens(16, "warm"), 2)], self.clock)


def times_as_much(factor: float | None) -> str:
    """A factor in words: "3.4 times". A dash where it is not known."""
    return "-" if factor is None else f"{factor:.2f} times"
