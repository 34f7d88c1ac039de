"""What the scenarios have in common: rounds that are measured one by one, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Column", "Round", "Scenario", "Summary", "times_as_much"]


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
    """One measurement. `figures` by name, in seconds, bytes and tokens; `copy_bytes_per_s` is the probe before it."""

    index: int
    what: str
    figures: Mapping[str, Any]
    copy_bytes_per_s: float


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

    def rounds(self) -> Iterator[Round]:
        """Measure, one round after the other."""

    def summarize(self, rounds: Sequence[Round]) -> Summary:
        """What `rounds` come to, all or as many as there are."""


def times_as_much(factor: float | None) -> str:
    """A factor in words: "3.4 times". A dash where it is not known."""
    return "-" if factor is None else f"{factor:.2f} times"
