"""Room for one more model: what there is, and who has to go. Pure arithmetic, in bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_local.runtime.wanted import ModelKey

__all__ = ["Held", "Room", "RoomLimits"]


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """`max_models` at once; `budget_bytes` for all of them together, None where what is free is all there is to it."""

    max_models: int
    budget_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What a model in memory holds: `taken_bytes` come back with it, and `growth_bytes` it may still take.

    `last_used` orders models: the one with the lowest goes first. A `busy` one never goes.
    """

    key: ModelKey
    device: str
    taken_bytes: int
    growth_bytes: int
    busy: bool
    last_used: int


class Room:
    """One look at the memory: `free_bytes` tells what is free on a device now."""

    def __init__(self, limits: RoomLimits, held: Sequence[Held], free_bytes: Callable[[str], int]) -> None:
        self._limits = limits
        self._held = held
        self._free_bytes = free_bytes

    def most_bytes(self, device: str) -> int:
        """What a model could have, if all others went."""
        most = self._free_bytes(device) + sum(one.taken_bytes for one in self._held if one.device == device)
        return most if self._limits.budget_bytes is None else min(most, self._limits.budget_bytes)

    def reserved_bytes(self, device: str) -> int:
        """How much of what is free on a device is not for a model that comes now."""
        return max(0, self._free_bytes(device) - self._available(device, self._held, 0))

    def victims(self, device: str, need_bytes: int) -> list[Held] | None:
        """Who has to go for a model of that size, least recently used first; None while that cannot be done."""
        kept = list(self._held)
        gone: list[Held] = []
        come_back = 0
        idle = sorted((one for one in kept if not one.busy), key=lambda one: one.last_used)
        while len(kept) >= self._limits.max_models or self._available(device, kept, come_back) < need_bytes:
            # another device's memory is of no use here, but its model may be one too many
            any_helps = len(kept) >= self._limits.max_models or self._limits.budget_bytes is not None
            useful = [one for one in kept if any_helps or one.device == device]
            victim = next((one for one in idle if one in useful), None)
            if victim is None:
                # with nobody to wait for, the loader has the last word: it measures what is free
                return None if useful else gone
            idle.remove(victim)
            kept.remove(victim)
            gone.append(victim)
            come_back += victim.taken_bytes if victim.device == device else 0
        return gone

    def _available(self, device: str, kept: Sequence[Held], come_back: int) -> int:
        growth = sum(one.growth_bytes for one in kept if one.device == device)
        available = self._free_bytes(device) + come_back - growth
        if self._limits.budget_bytes is None:
            return available
        held = sum(one.taken_bytes + one.growth_bytes for one in kept)
        return min(available, self._limits.budget_bytes - held)
