"""The written order of a line: who is let in next. Pure state: no clock, no event loop.

1. Those of one owner and one priority stand first come, first served; the foremost of them is a candidate.
2. A candidate's level is its priority, and one more for every `aging_s` seconds that it has been the foremost, up to
   `TOP_PRIORITY`. So whoever is passed over rises until nobody is above; and since only the foremost rises, a caller
   that floods the line with old requests does not rise with all of them above everybody else.
3. The highest level goes first. Of the same level: the owner of whom the fewest run, then the owner who was let in
   longest ago, then who came first. So owners share the places that become free, whatever each of them has waiting.

An owner of whom nobody waits or runs is forgotten, and comes back as one who was never let in.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

__all__ = ["LOWEST_PRIORITY", "TOP_PRIORITY", "WrittenOrder"]

LOWEST_PRIORITY: Final = -10
TOP_PRIORITY: Final = 10


@dataclass(slots=True)
class _Row:
    """Those of one owner and one priority, by their number of arrival; `since` one of them has been the foremost."""

    owner: str
    priority: int
    since: float
    numbers: OrderedDict[int, None] = field(default_factory=OrderedDict)

    def level(self, now: float, aging_s: float) -> int:
        return min(TOP_PRIORITY, self.priority + int((now - self.since) / aging_s))

    def next_rise(self, now: float, aging_s: float) -> float:
        if self.level(now, aging_s) == TOP_PRIORITY:
            return math.inf
        return self.since + (int((now - self.since) / aging_s) + 1) * aging_s


@dataclass(slots=True)
class _Owner:
    """What the order knows of an owner: how many wait and run, and when one was last let in (0: never)."""

    waiting: int = 0
    running: int = 0
    last_turn: int = 0


class WrittenOrder:
    """Who waits, who runs, and who is next. All times are seconds of one monotonic clock, handed in."""

    def __init__(self, aging_s: float) -> None:
        self._aging_s = aging_s
        self._rows: dict[tuple[str, int], _Row] = {}
        self._row_of: dict[int, _Row] = {}
        self._owners: dict[str, _Owner] = {}
        self._last_number = 0
        self._last_turn = 0

    def __len__(self) -> int:
        return len(self._row_of)

    @property
    def num_owners(self) -> int:
        """Owners of whom somebody waits or runs."""
        return len(self._owners)

    def num_waiting(self, owner: str) -> int:
        """How many of an owner wait."""
        known = self._owners.get(owner)
        return known.waiting if known is not None else 0

    def join(self, owner: str, priority: int, now: float) -> int:
        """Somebody comes; returns the number under which the line knows them."""
        self._last_number += 1
        row = self._rows.setdefault((owner, priority), _Row(owner, priority, now))
        row.numbers[self._last_number] = None
        self._row_of[self._last_number] = row
        self._owners.setdefault(owner, _Owner()).waiting += 1
        return self._last_number

    def num_running(self, owner: str) -> int:
        """How many of an owner run."""
        known = self._owners.get(owner)
        return known.running if known is not None else 0

    def take_next(self, now: float, most: Callable[[str], int] | None = None) -> int | None:
        """Let the next one in, who runs from now on; None when nobody waits.

        `most` says how many of an owner may run; those of an owner of whom so many run stay where they are.
        """
        rows = [
            row
            for row in self._rows.values()
            if most is None or self.num_running(row.owner) < most(row.owner)
        ]
        if not rows:
            return None
        row = min(rows, key=lambda row: self._rank(row, self._owners[row.owner], now))
        number = next(iter(row.numbers))
        owner = self._owners[row.owner]
        self._last_turn += 1
        owner.last_turn = self._last_turn
        owner.running += 1
        self._take_out(number, now)
        return number

    def leave(self, number: int, now: float) -> None:
        """Somebody who waits goes away."""
        owner = self._row_of[number].owner
        self._take_out(number, now)
        self._forget_idle(owner)

    def finish(self, owner: str) -> None:
        """One of an owner's who ran is done."""
        self._owners[owner].running -= 1
        self._forget_idle(owner)

    def standing(self, now: float) -> list[int]:
        """Those who wait, as they would be let in if nobody came, left or finished from now on, and any number ran."""
        owners = {
            name: _Owner(owner.waiting, owner.running, owner.last_turn)
            for name, owner in self._owners.items()
        }
        ahead = {key: iter(row.numbers) for key, row in self._rows.items()}
        # (level, the owner's running and last turn, number): a rank only ever gets worse, so an entry that has become
        # stale is put back with what holds now.
        heap = [
            (*self._rank(row, owners[row.owner], now), key, next(ahead[key]))
            for key, row in self._rows.items()
        ]
        heapq.heapify(heap)
        found: list[int] = []
        turn = self._last_turn
        while heap:
            level, running, last_turn, _, key, number = heapq.heappop(heap)
            owner = owners[key[0]]
            if (running, last_turn) != (owner.running, owner.last_turn):
                heapq.heappush(heap, (level, owner.running, owner.last_turn, number, key, number))
                continue
            found.append(number)
            turn += 1
            owner.running, owner.last_turn = owner.running + 1, turn
            after = next(ahead[key], None)
            if after is not None:
                heapq.heappush(heap, (-key[1], owner.running, owner.last_turn, after, key, after))
        return found

    def next_rise(self, now: float) -> float:
        """When time alone may change who stands where; infinity: never."""
        return min((row.next_rise(now, self._aging_s) for row in self._rows.values()), default=math.inf)

    def _rank(self, row: _Row, owner: _Owner, now: float) -> tuple[int, int, int, int]:
        """Smaller goes first."""
        return (
            -row.level(now, self._aging_s),
            owner.running,
            owner.last_turn,
            next(iter(row.numbers)),
        )

    def _take_out(self, number: int, now: float) -> None:
        row = self._row_of.pop(number)
        if next(iter(row.numbers)) == number:
            row.since = now  # for whoever is the foremost now
        del row.numbers[number]
        if not row.numbers:
            del self._rows[row.owner, row.priority]
        self._owners[row.owner].waiting -= 1

    def _forget_idle(self, name: str) -> None:
        owner = self._owners[name]
        if not owner.waiting and not owner.running:
            del self._owners[name]
