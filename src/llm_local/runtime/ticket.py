"""A place in a line, held by whoever entered: where it stands, waiting for its turn, and giving it back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final, Protocol

from llm_local.errors import LocalLLMError
from llm_local.runtime.line_facts import Place, TicketState

__all__ = ["Ticket"]

# Up to so many who wait are told of every step; more of them of so many steps a second, all together.
FEW: Final = 8
TOLD_PER_S: Final = 200


class _Line(Protocol):
    """What a ticket asks of the line that gave it out."""

    changed: asyncio.Event

    def clock(self) -> float:
        """Seconds of the line's clock."""

    def place(self, ticket: Ticket) -> Place:
        """Where it stands."""

    def settle(self, ticket: Ticket, state: TicketState) -> bool:
        """End its wait; False when it was over."""

    def finish(self, ticket: Ticket) -> None:
        """Free its place, if it runs."""


class Ticket:
    """A place in a line, from `Line.enter` until `leave()`, which whoever entered must call, whatever happens."""

    def __init__(self, line: _Line, owner: str, priority: int, expires: float) -> None:
        self.owner = owner
        self.priority = priority
        self.state: TicketState = "waiting"
        self.entered = self.waited_until = line.clock()
        self.expires = expires
        self.number = 0
        self._line = line
        self._error: LocalLLMError | None = None
        self._settled = asyncio.Event()

    @property
    def place(self) -> Place:
        """Where it stands now."""
        return self._line.place(self)

    @property
    def waited_s(self) -> float:
        """Seconds from entering until the wait was over, or until now."""
        return (self._line.clock() if self.state == "waiting" else self.waited_until) - self.entered

    async def turn(self) -> bool:
        """Wait until it is let in: True; False when it was cancelled. A task that is cancelled here leaves the line.

        Raises:
            Busy: kind "queue_timeout": it waited too long; or what the line was closed with.
        """
        try:
            await self._settled.wait()
        except asyncio.CancelledError:
            self.leave()
            raise
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self.state in ("running", "finished")

    async def places(self) -> AsyncGenerator[Place]:
        """Where it stands, now and whenever that changes, while it waits. Any number may watch.

        That somebody rose by waiting wakes nobody by itself: it shows with the next who comes, leaves or is let in. In
        a long line not every step is told; being let in always is, at once.
        """
        last: tuple[int, int] | None = None
        while self.state == "waiting":
            changed = self._line.changed
            place = self.place
            # the estimate is another one at every look, and that is no news
            if (place.position, place.total) != last:
                last = place.position, place.total
                yield place
                await self._pause(place.total)
            await changed.wait()

    async def _pause(self, waiting: int) -> None:
        """In a long line every step moves everybody; telling all of them each time would take more than the work."""
        if waiting > FEW:
            with suppress(TimeoutError):
                async with asyncio.timeout(waiting / TOLD_PER_S):
                    await self._settled.wait()

    def cancel(self) -> bool:
        """Give up waiting: it is out of the line at once. False, and nothing happens, when it does not wait."""
        return self._line.settle(self, "cancelled")

    def leave(self) -> None:
        """Be done, wherever it is: a running one frees its place for the next. Harmless when repeated."""
        if not self.cancel():
            self._line.finish(self)

    def settled(self, state: TicketState, error: LocalLLMError | None = None) -> None:
        """The line says how the waiting, or the running, ended."""
        if self.state == "waiting":
            self.waited_until = self._line.clock()
        self.state, self._error = state, error
        self._settled.set()
