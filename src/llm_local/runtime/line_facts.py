"""What a line is told and tells: its limits, where somebody stands, its statistics. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LineLimits", "LineStatistics", "Place", "TicketState"]

TicketState = Literal["waiting", "running", "finished", "cancelled", "timed_out", "refused"]


@dataclass(frozen=True, slots=True)
class LineLimits:
    """- `max_concurrent`: how many run at once; `max_waiting`: how many may wait beside them.
    - `timeout_s`: the longest wait; `aging_s`: how long the foremost is passed over before it rises by one priority.
    - `reserved`: the last of the waiting places: where there are owners, for one of whom nobody waits yet.
    """

    max_concurrent: int = 32
    max_waiting: int = 256
    timeout_s: float = 300.0
    aging_s: float = 10.0
    reserved: int = 0

    @property
    def owner_most(self) -> int:
        """How many of one owner may run where there are owners: a quarter of the places is kept for others."""
        return self.max_concurrent - self.max_concurrent // 4


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody stands: `position` counts from 1 (next), 0 is let in. `eta_s`: None before anything was measured.

    The estimate is position x the time that a request holds its place / places: that of requests lately, or of those
    that run so far if they have run longer already. It is what was measured, and no promise.
    """

    position: int
    total: int
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class LineStatistics:
    """One look at a line. Totals count since it was made; means are of late, in seconds (None: nothing measured)."""

    running: int
    waiting: int
    owners: int
    max_concurrent: int
    max_waiting: int
    admitted_total: int
    finished_total: int
    cancelled_total: int
    timed_out_total: int
    refused_total: int
    mean_wait_s: float | None
    mean_run_s: float | None
    longest_wait_s: float
    newcomer_eta_s: float | None
