"""The bounded line in front of a model: who may run now, who waits where and for how long, and who is refused.

Everything here belongs to one event loop and is not safe from other threads. Nothing is polled: a place that becomes
free is given away at once, and whoever watches a place is woken when it changed. The order is that of `runtime.order`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Final

from llm_local.conversations.records import LOCAL_OWNER
from llm_local.errors import Busy, InvalidRequest, LocalLLMError
from llm_local.options import Bound
from llm_local.runtime.line_facts import LineLimits, LineStatistics, Place, TicketState
from llm_local.runtime.order import LOWEST_PRIORITY, TOP_PRIORITY, WrittenOrder
from llm_local.runtime.ticket import Ticket

__all__ = ["PRIORITY", "Line"]

PRIORITY: Final = Bound(LOWEST_PRIORITY, TOP_PRIORITY, integer=True)
# What clients obey of a Retry-After: nothing below a second, and hardly more than two minutes.
RETRY_AFTER_S: Final = (1.0, 120.0)
# Moments that were computed in different ways may differ in their last bits.
CLOCK_GRAIN_S: Final = 1e-6
# How much the newest measurement weighs in an average that moves on.
NEWEST_WEIGHT: Final = 0.125


class Line:
    """The line itself, with a fixed number of places to run in."""

    def __init__(
        self, limits: LineLimits | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits or LineLimits()
        self.clock = clock
        self.changed = asyncio.Event()  # set once and replaced, whenever anybody's place may have changed
        self._order = WrittenOrder(self.limits.aging_s)
        self._waiting: dict[int, Ticket] = {}
        self._running: set[Ticket] = set()
        self._standing: dict[int, int] = {}  # number to position, until `_stale`
        self._stale = -math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._closed_with: LocalLLMError | None = None
        self._totals = dict.fromkeys(("admitted", "finished", "cancelled", "timed_out", "refused"), 0)
        self._mean_wait_s: float | None = None
        self._mean_run_s: float | None = None

    def enter(
        self,
        owner: str,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        deadline_s: float | None = None,
    ) -> Ticket:
        """Take a place, or be refused at once, before anything was done for the request.

        `timeout_s` is the longest wait (at most, and by default, the line's own); `deadline_s` the time for the whole
        request, which no wait outlasts. Both count from now.

        Raises:
            Busy: kind "server_busy": the line is full; `retry_after_s` says when a place should be free.
            InvalidRequest: no such priority, or a time that is not above 0.
        """
        PRIORITY.check("priority", priority)
        now = self.clock()
        wait_s = min([self.limits.timeout_s, *_times(timeout_s=timeout_s, deadline_s=deadline_s)])
        if self._closed_with is not None:
            raise self._closed_with.with_traceback(None)
        if self.is_full(owner):
            raise self.refuse()
        ticket = Ticket(self, owner, priority, now + wait_s)
        ticket.number = self._order.join(owner, priority, now)
        self._waiting[ticket.number] = ticket
        self._advance()
        if ticket.state == "waiting":
            self._arm()
        return ticket

    def is_full(self, owner: str) -> bool:
        """True while there is no place for one more of that owner, neither to run nor to wait."""
        return not self._can_run(owner) and not self._can_wait(owner)

    def refuse(self) -> Busy:
        """Count one who found it full, and say what to tell them."""
        self._totals["refused"] += 1
        return Busy(
            f"The server is busy: {len(self._running)} requests run and {len(self._waiting)} wait.",
            "Try again later.",
            retry_after_s=self.retry_after_s(),
            kind="server_busy",
        )

    def resize(self, max_concurrent: int) -> None:
        """Change how many run at once; who runs already is left alone."""
        self.limits = dataclasses.replace(self.limits, max_concurrent=max_concurrent)
        self._advance()

    def close(self, error: LocalLLMError) -> None:
        """Refuse everybody who waits, and whoever comes, with `error`; those who run go on. Harmless when repeated."""
        self._closed_with = error
        for ticket in list(self._waiting.values()):
            self.settle(ticket, "refused", error)

    async def idle(self) -> None:
        """Wait until nobody runs or waits."""
        while self._running or self._waiting:
            await self.changed.wait()

    def place(self, ticket: Ticket) -> Place:
        """Where a ticket stands now."""
        if ticket.state != "waiting":
            return Place(0, len(self._waiting), 0.0)
        now = self.clock()
        if now >= self._stale:
            self._standing = {number: i for i, number in enumerate(self._order.standing(now), 1)}
            self._stale = self._order.next_rise(now) - CLOCK_GRAIN_S
        position = self._standing[ticket.number]
        return Place(position, len(self._waiting), self._eta_s(position))

    def retry_after_s(self) -> float:
        """When a refused one should try again: when a quarter of a full line should have been let in.

        Not when the next place should be free, or all who were refused would come back for that one.
        """
        run_s = self._expected_run_s()
        turns = max(1, self.limits.max_waiting // 4)
        low, high = RETRY_AFTER_S
        return min(high, max(low, math.ceil(run_s * turns / self.limits.max_concurrent)))

    def statistics(self) -> LineStatistics:
        """Everything there is to know of the line now."""
        now = self.clock()
        waiting = len(self._waiting)
        return LineStatistics(
            running=len(self._running),
            waiting=waiting,
            owners=self._order.num_owners,
            max_concurrent=self.limits.max_concurrent,
            max_waiting=self.limits.max_waiting,
            **{f"{name}_total": count for name, count in self._totals.items()},
            mean_wait_s=self._mean_wait_s,
            mean_run_s=self._mean_run_s,
            longest_wait_s=max((now - ticket.entered for ticket in self._waiting.values()), default=0.0),
            newcomer_eta_s=(
                0.0 if len(self._running) < self.limits.max_concurrent else self._eta_s(waiting + 1)
            ),
        )

    def expire(self) -> None:
        """End the waits whose time is over. A timer calls this; calling it at any time is harmless."""
        self._expire(self.clock())
        self._arm()

    def settle(self, ticket: Ticket, state: TicketState, error: LocalLLMError | None = None) -> bool:
        """End a wait without letting it in; False when it was over already. For tickets and this module."""
        if self._waiting.pop(ticket.number, None) is None:
            return False
        self._order.leave(ticket.number, self.clock())
        self._totals[state] += 1
        ticket.settled(state, error)
        self._wake()
        return True

    def finish(self, ticket: Ticket) -> None:
        """Give the place of one who ran to the next; nothing when it does not run. For tickets."""
        if ticket not in self._running:
            return
        self._running.remove(ticket)
        self._order.finish(ticket.owner)
        self._totals["finished"] += 1
        self._mean_run_s = _moved(self._mean_run_s, self.clock() - ticket.waited_until)
        ticket.settled("finished")
        self._advance()
        self._wake()

    def _most(self, owner: str) -> int:
        """How many of an owner may run. Without keys there is one owner, and nobody to keep a place for."""
        return self.limits.max_concurrent if owner == LOCAL_OWNER else self.limits.owner_most

    def _can_run(self, owner: str) -> bool:
        free = self.limits.max_concurrent - len(self._running)
        return free > 0 and self._order.num_running(owner) < self._most(owner)

    def _can_wait(self, owner: str) -> bool:
        alone = owner == LOCAL_OWNER or not self._order.num_waiting(owner)
        kept = 0 if alone else self.limits.reserved
        return len(self._waiting) < self.limits.max_waiting - kept

    def _advance(self) -> None:
        """Let in whoever is next, as long as there are places."""
        now = self.clock()
        self._expire(now)  # the timer may be late, but nobody is let in after their time
        while len(self._running) < self.limits.max_concurrent:
            number = self._order.take_next(now, self._most)
            if number is None:
                break
            ticket = self._waiting.pop(number)
            self._running.add(ticket)
            self._totals["admitted"] += 1
            self._mean_wait_s = _moved(self._mean_wait_s, now - ticket.entered)
            ticket.settled("running")
        self._wake()

    def _expire(self, now: float) -> None:
        for ticket in [one for one in self._waiting.values() if one.expires <= now]:
            error = Busy(
                f"The request waited {now - ticket.entered:.1f} s for its turn, which is as long as it may.",
                "Try again later, or allow a longer wait.",
                retry_after_s=self.retry_after_s(),
                kind="queue_timeout",
            )
            self.settle(ticket, "timed_out", error)

    def _wake(self) -> None:
        self._stale = -math.inf
        self.changed.set()
        self.changed = asyncio.Event()

    def _eta_s(self, position: int) -> float | None:
        if self._mean_run_s is None:
            return None
        return self._expected_run_s() * position / self.limits.max_concurrent

    def _expected_run_s(self) -> float:
        """How long a request holds its place: as lately, or as those who run by now, if that is longer."""
        now = self.clock()
        so_far_s = [now - ticket.waited_until for ticket in self._running]
        return max(self._mean_run_s or 0.0, sum(so_far_s) / len(so_far_s) if so_far_s else 0.0)

    def _arm(self) -> None:
        """One timer, for the wait that is over first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            first = min(ticket.expires for ticket in self._waiting.values())
            delay = max(0.0, first - self.clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self.expire)


def _times(**named: float | None) -> list[float]:
    """The times that were given.

    Raises:
        InvalidRequest: one that is not above 0.
    """
    for name, seconds in named.items():
        if seconds is not None and not seconds > 0:
            raise InvalidRequest(f"{name} is {seconds}, but must be above 0.", param=name)
    return [seconds for seconds in named.values() if seconds is not None]


def _moved(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + NEWEST_WEIGHT * (newest - mean)
