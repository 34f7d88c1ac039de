"""A service whose replies are written while a test looks on: events are put in one by one, and places in line set."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from api.fake_service import TIMINGS, USAGE, FakeReply, FakeService
from llm_local.events import Delta, Event, Finish
from llm_local.runtime.line_facts import LineStatistics, Place
from llm_local.service import Work

FINISH = Finish("stop", USAGE, TIMINGS)
LINE = LineStatistics(1, 2, 1, 4, 8, 10, 6, 1, 1, 3, 0.5, 2.0, 0.7, 1.5)


class ScriptedReply(FakeReply):
    """Its events come from `say`; `cancel` is heard at once, as in the service."""

    def __init__(self, work: Work) -> None:
        super().__init__((), work)
        self.place: Place | None = None
        self._said: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._over = False

    async def say(self, *events: Event | Exception) -> None:
        """Put events in, and let everybody run who waits for them."""
        for event in events:
            self._said.put_nowait(event)
        await settled()

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        event = await self._said.get()
        if isinstance(event, Exception):
            raise event
        self._over = isinstance(event, Finish)
        return event

    def cancel(self) -> None:
        self._said.put_nowait(Finish("cancelled", USAGE, TIMINGS))


class ScriptedService(FakeService):
    """Makes scripted replies. `loading`: set to hold back `begin` as a model that loads would."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.loading: asyncio.Event | None = None

    async def begin(self, work: Work) -> Any:
        if self.loading is not None:
            await self.loading.wait()
        if self.refusal is not None:
            raise self.refusal
        self.works.append(work)
        self.replies.append(ScriptedReply(work))
        return self.replies[-1]

    def stats(self) -> SimpleNamespace:
        return SimpleNamespace(lines={"fake": LINE})


async def settled() -> None:
    """Let all tasks run until they wait."""
    for _ in range(12):
        await asyncio.sleep(0)


def words(text: str) -> list[Event]:
    """A reply of some words, and its end."""
    return [*(Delta("content", word, (index,)) for index, word in enumerate(text.split(" "))), FINISH]
