"""Several answers at once: none is lost, none is left running."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llm_local.api.openai.choices import Choice, Chunks, begin_choices, events_of, read_all
from llm_local.errors import EngineError, InvalidRequest, LocalLLMError
from llm_local.events import Delta, Event, Finish, Timings, ToolCallEvent, Usage
from llm_local.messages import Message, ToolCall
from llm_local.service import Caller, ServedReply, Service, Work

END = Finish("stop", Usage(2, 0, 3), Timings())


class FakeReply:
    """Gives what it was made with, a loop's turn apart; `cancel` ends it as a real one does."""

    def __init__(self, events: Sequence[Event | Exception]) -> None:
        self._events = list(events)
        self.cancelled = self.closed = self.timed_out = False

    def __aiter__(self) -> FakeReply:
        return self

    async def __anext__(self) -> Event:
        await asyncio.sleep(0)
        if self.closed or not self._events:
            raise StopAsyncIteration
        event = self._events.pop(0)
        if isinstance(event, Exception):
            raise event
        return event

    def cancel(self) -> None:
        self.cancelled = True
        self._events[-1] = Finish("cancelled", Usage(2, 0, 9), Timings())

    async def aclose(self) -> None:
        self.closed = True


def choices(
    *replies: Sequence[Event | Exception], one_call: bool = False
) -> tuple[list[Choice], list[FakeReply]]:
    made = [FakeReply(events) for events in replies]
    return [Choice(place, 0, cast(ServedReply, one), one_call) for place, one in enumerate(made)], made


def deltas(*texts: str) -> list[Event]:
    return [*(Delta("content", text) for text in texts), END]


def test_events_of_all_choices_come_as_they_are_made() -> None:
    async def run() -> list[tuple[int, Event]]:
        found, _ = choices(deltas("a", "b"), deltas("c"), deltas())
        return [(choice.index, event) async for choice, event in events_of(found)]

    events = asyncio.run(run())
    for index, texts in enumerate((["a", "b"], ["c"], [])):
        assert [event.text for place, event in events if place == index and isinstance(event, Delta)] == texts
    assert [event for _, event in events].count(END) == 3


def test_a_failure_of_one_ends_them_all() -> None:
    async def stream() -> list[FakeReply]:
        found, made = choices(deltas(*"abcdefgh"), [EngineError("It broke.")])
        chunks = Chunks(found, relayed(found))
        with pytest.raises(EngineError, match="broke"):
            while True:
                await anext(chunks)
        await chunks.aclose()
        return made

    async def whole() -> list[FakeReply]:
        found, made = choices(deltas(*"abcdefgh"), [EngineError("It broke.")])
        with pytest.raises(EngineError, match="broke"):
            await read_all(found)
        return made

    for run in (stream, whole):
        assert all(reply.closed for reply in asyncio.run(run()))


@pytest.mark.parametrize(("timed_out", "kind"), [(False, "engine_error"), (True, "deadline_exceeded")])
def test_a_reply_that_ends_before_its_time_is_an_error(timed_out: bool, kind: str) -> None:
    async def run() -> None:
        found, [reply] = choices([Delta("content", "a"), Finish("cancelled", Usage(), Timings())])
        reply.timed_out = timed_out
        await read_all(found)

    with pytest.raises(LocalLLMError) as caught:
        asyncio.run(run())
    assert caught.value.kind == kind


def test_who_is_cancelled_while_reading_closes_them() -> None:
    async def run() -> list[FakeReply]:
        found, made = choices(deltas(*"a" * 1000), deltas(*"b" * 1000))
        task = asyncio.create_task(read_all(found))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return made

    assert all(reply.closed for reply in asyncio.run(run()))


def test_chunks_that_nobody_reads_close_their_choices() -> None:
    async def run() -> list[FakeReply]:
        found, made = choices(deltas("a"), deltas("b"))
        await Chunks(found, relayed(found)).aclose()
        return made

    assert all(reply.closed for reply in asyncio.run(run()))


def test_with_one_call_the_reply_ends_after_its_first() -> None:
    async def run() -> tuple[list[Event], FakeReply]:
        first, second = (ToolCallEvent(ToolCall(name, name, {})) for name in "fg")
        after = Delta("content", "and then", (7,))
        [choice], [reply] = choices([Delta("content", "Hm"), first, after, second, END], one_call=True)
        return [event async for _, event in events_of([choice])], reply

    events, reply = asyncio.run(run())
    assert reply.cancelled
    assert [type(event).__name__ for event in events] == ["Delta", "ToolCallEvent", "Delta", "Finish"]
    assert events[2] == Delta("content", "", (7,))
    assert events[3] == Finish("tool_calls", Usage(2, 0, 9), Timings())


def test_without_it_there_may_be_many() -> None:
    async def run() -> list[Event]:
        calls = [ToolCallEvent(ToolCall(name, name, {})) for name in "fg"]
        found, _ = choices([*calls, END])
        return (await read_all(found))[0]

    assert len(asyncio.run(run())) == 3


class FakeService:
    """Begins replies until it is asked for the one that cannot be."""

    def __init__(self) -> None:
        self.begun: list[FakeReply] = []

    async def begin(self, work: Work) -> Any:
        if work.prompt == "bad":
            raise InvalidRequest("No.")
        self.begun.append(FakeReply(deltas("x")))
        return self.begun[-1]

    async def begin_many(self, work: Work, n: int) -> Any:
        return tuple([await self.begin(work) for _ in range(n)])


def test_choices_of_a_prompt_are_next_to_each_other() -> None:
    works = [Work(Caller("me"), prompt=text) for text in "ab"]
    found = asyncio.run(begin_choices(cast(Service, FakeService()), works, 2))
    assert [(choice.index, choice.prompt) for choice in found] == [(0, 0), (1, 0), (2, 1), (3, 1)]


def test_where_one_cannot_begin_none_goes_on() -> None:
    service = FakeService()
    works = [Work(Caller("me"), prompt="good"), Work(Caller("me"), messages=(Message("user", "x"),))]
    works.append(Work(Caller("me"), prompt="bad"))
    with pytest.raises(InvalidRequest):
        asyncio.run(begin_choices(cast(Service, service), works))
    assert [reply.closed for reply in service.begun] == [True, True]


class Thoughtless(FakeService):
    """Has no switch for reasoning; `thinking` says whether its model reasons."""

    def __init__(self, thinking: str) -> None:
        super().__init__()
        self.thinking = thinking

    async def begin(self, work: Work) -> Any:
        if "think" in work.changes:
            raise InvalidRequest("There is no switch.", param="think")
        return await super().begin(work)

    def told_name(self, model: str | None) -> str:
        return model or "m"

    async def show(self, model: str | None) -> Any:
        return SimpleNamespace(card=SimpleNamespace(capabilities=SimpleNamespace(thinking=self.thinking)))


@pytest.mark.parametrize("n", [1, 2])
def test_a_model_that_never_reasons_needs_no_switch_for_it(n: int) -> None:
    work = Work(Caller("me"), prompt="x", changes={"think": "off", "seed": 1})
    found = asyncio.run(begin_choices(cast(Service, Thoughtless("")), [work], n))
    assert [choice.never_reasons for choice in found] == [True] * n
    with pytest.raises(InvalidRequest):
        asyncio.run(begin_choices(cast(Service, Thoughtless("always or by itself")), [work], n))
    louder = dataclasses.replace(work, changes={"think": "low"})
    with pytest.raises(InvalidRequest):
        asyncio.run(begin_choices(cast(Service, Thoughtless("")), [louder], n))


async def relayed(found: Sequence[Choice]) -> AsyncGenerator[Any]:
    async with aclosing(events_of(found)) as events:
        async for _, event in events:
            yield event
