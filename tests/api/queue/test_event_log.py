"""Numbered events: every reader gets each once and in order, from where it left off."""

from __future__ import annotations

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_local.api.queue.event_log import OVERHEAD_BYTES, EventLog
from llm_local.api.streams import SseEvent


async def read(log: EventLog, number: int = 0) -> list[tuple[str | None, str | None, object]]:
    return [(one.id, one.event, json.loads(one.data)) async for one in log.after(number)]


def test_readers_get_what_was_and_what_comes_each_from_its_own_place() -> None:
    async def play() -> None:
        log = EventLog()
        log.append(SseEvent({"n": 1}, "delta"))
        first = asyncio.create_task(read(log))
        await asyncio.sleep(0)
        log.append(SseEvent({"n": 2}, "delta"))
        second = asyncio.create_task(read(log, 1))
        await asyncio.sleep(0)
        log.append(SseEvent({"n": 3}, "finish"))
        log.close()
        everything = [("1", "delta", {"n": 1}), ("2", "delta", {"n": 2}), ("3", "finish", {"n": 3})]
        assert await first == everything
        assert await second == everything[1:]
        assert await read(log) == everything
        assert await read(log, 3) == []
        assert await read(log, 99) == []

    asyncio.run(play())


def test_what_is_gone_is_told() -> None:
    async def play() -> None:
        log = EventLog(max_bytes=3 * (OVERHEAD_BYTES + 10))
        for number in range(1, 11):
            log.append(SseEvent({"n": number}, "delta"))
        log.close()
        assert log.last == 10
        events = [(one.id, one.event, one.data) async for one in log.after(4)]
        assert events[0] == ("7", "gap", {"missed": 3})
        assert [one[0] for one in events[1:]] == ["8", "9", "10"]
        assert (await read(log, 7))[0][0] == "8"
        assert log.num_bytes <= 3 * (OVERHEAD_BYTES + 10)

    asyncio.run(play())


def test_one_event_is_kept_whatever_its_size() -> None:
    log = EventLog(max_bytes=10)
    log.append(SseEvent("x" * 100, "delta"))
    assert (log.last, asyncio.run(_one(log)).data) == (1, "x" * 100)


async def _one(log: EventLog) -> SseEvent:
    return await anext(log.after(0))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["append", "read", "leave"]), max_size=40), st.integers(1, 6))
def test_a_reader_that_comes_back_misses_nothing_and_hears_nothing_twice(actions, kept) -> None:
    async def play() -> None:
        log = EventLog(max_bytes=kept * (OVERHEAD_BYTES + 20))
        position = 0
        reader = log.after(0)
        for action in actions:
            if action == "append":
                log.append(SseEvent({"n": log.last + 1}, "delta"))
            elif action == "leave":
                await reader.aclose()
                reader = log.after(position)
            elif position < log.last:
                event = await anext(reader)
                if event.event == "gap":
                    position += event.data["missed"]
                else:
                    position += 1
                    assert json.loads(event.data)["n"] == position
                assert event.id == str(position)
        await reader.aclose()

    asyncio.run(play())
