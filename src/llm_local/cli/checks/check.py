"""One thing that was looked at: what was found, how well that is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["STATES", "Check", "State", "worst"]

State = Literal["ok", "warn", "fail"]
STATES: Final[tuple[State, ...]] = ("ok", "warn", "fail")
"""From good to bad."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    `state` is ok; warn, where llm-local runs but could run better or means something else than it seems; or fail,
    where something does not work until it is mended. `mend` says how, and is empty when all is well.
    """

    name: str
    found: str
    state: State = "ok"
    mend: str = ""


def worst(checks: Iterable[Check]) -> State:
    """The state of the whole: that of its worst part."""
    return max((one.state for one in checks), key=STATES.index, default="ok")
