"""The bounded line: who runs, who waits, who is refused, and that nobody is forgotten in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import FakeClock
from llm_local.errors import Busy, InvalidRequest
from llm_local.runtime.line import Line
from llm_local.runtime.line_facts import LineLimits, Place
from llm_local.runtime.order import WrittenOrder
from llm_local.runtime.ticket import Ticket


def in_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """The line lives on an event loop."""

    def run() -> None:
        asyncio.run(test())  # type: ignore[arg-type]

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def line_of(max_concurrent: int = 1, max_waiting: int = 4, **limits: Any) -> tuple[Line, FakeClock]:
    clock = FakeClock()
    return Line(LineLimits(max_concurrent, max_waiting, **limits), clock=clock), clock


def positions(*tickets: Ticket) -> list[int]:
    return [ticket.place.position for ticket in tickets]


@in_a_loop
async def test_places_go_to_who_comes_first_and_the_rest_waits_in_order() -> None:
    line, _ = line_of(max_concurrent=2)
    tickets = [line.enter("local") for _ in range(5)]
    assert [ticket.state for ticket in tickets] == ["running"] * 2 + ["waiting"] * 3
    assert positions(*tickets) == [0, 0, 1, 2, 3]
    tickets[0].leave()
    assert positions(*tickets[2:]) == [0, 1, 2]
    assert await tickets[2].turn() is True


@in_a_loop
async def test_a_full_line_refuses_and_says_when_to_come_back() -> None:
    line, clock = line_of(max_concurrent=2, max_waiting=8, timeout_s=10_000.0)
    tickets = [line.enter("local") for _ in range(10)]
    with pytest.raises(Busy, match="2 requests run and 8 wait") as refused:
        line.enter("local", priority=10)
    assert refused.value.kind == "server_busy"
    assert refused.value.retry_after_s == 1.0  # the least: nothing was measured
    clock.advance(7.0)
    with pytest.raises(Busy) as refused:
        line.enter("local")
    # those who run are expected to run as long again: 2 turns of 2 places
    assert refused.value.retry_after_s == 7.0
    tickets[0].leave()
    line.enter("local")
    clock.advance(1000.0)
    tickets[1].leave()
    line.enter("local")
    with pytest.raises(Busy) as refused:
        line.enter("local")
    assert refused.value.retry_after_s == 120.0
    assert line.statistics().refused_total == 3


@in_a_loop
async def test_a_line_without_waiting_places_still_has_its_places_to_run() -> None:
    line, _ = line_of(max_concurrent=1, max_waiting=0)
    ticket = line.enter("local")
    with pytest.raises(Busy):
        line.enter("local")
    ticket.leave()
    assert line.enter("local").state == "running"


@in_a_loop
async def test_where_there_are_owners_some_places_are_kept_for_the_others() -> None:
    line, _ = line_of(max_concurrent=8, max_waiting=16, reserved=2)
    flood = [line.enter("flood") for _ in range(6 + 14)]
    assert [ticket.state for ticket in flood] == ["running"] * 6 + ["waiting"] * 14
    with pytest.raises(Busy):
        line.enter("flood")
    others = [line.enter("other") for _ in range(2)]
    assert [ticket.state for ticket in others] == ["running"] * 2, "at once, whoever waits"
    last = [line.enter(name) for name in ("third", "fourth")]
    assert [ticket.place.position for ticket in last] == [1, 2]
    with pytest.raises(Busy):
        line.enter("fifth")
    flood[0].leave()
    assert [ticket.state for ticket in last] == ["running", "waiting"]
    others[0].leave()
    flood[1].leave()
    assert last[1].state == "running"
    assert sum(ticket.state == "running" for ticket in flood) <= 6


@in_a_loop
async def test_without_keys_the_one_owner_has_all_places() -> None:
    line, _ = line_of(max_concurrent=8, max_waiting=16, reserved=2)
    tickets = [line.enter("local") for _ in range(24)]
    assert [ticket.state for ticket in tickets] == ["running"] * 8 + ["waiting"] * 16


@in_a_loop
async def test_cancelling_takes_out_of_the_line_at_once_and_twice_is_once() -> None:
    line, _ = line_of(max_concurrent=1)
    running, first, second = (line.enter("local") for _ in range(3))
    turn = asyncio.create_task(first.turn())
    await asyncio.sleep(0)
    assert first.cancel() is True
    assert positions(second) == [1]
    assert line.statistics().waiting == 1
    assert [first.cancel(), first.cancel()] == [False, False]
    assert await turn is False
    assert (first.state, line.statistics().cancelled_total) == ("cancelled", 1)
    first.leave()
    assert running.cancel() is False, "who runs is not cancelled by the line"
    running.leave()
    running.leave()
    assert (second.state, line.statistics().finished_total) == ("running", 1)


@in_a_loop
async def test_a_waiting_task_that_is_cancelled_leaves_in_the_same_turn_of_the_loop() -> None:
    line, _ = line_of(max_concurrent=1)
    running, gone, next_one = (line.enter("local") for _ in range(3))
    task = asyncio.create_task(gone.turn())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert (gone.state, positions(next_one)) == ("cancelled", [1])
    running.leave()
    assert next_one.state == "running"


@in_a_loop
async def test_a_task_that_is_cancelled_just_as_it_is_let_in_gives_its_place_on() -> None:
    line, _ = line_of(max_concurrent=1)
    running, gone, next_one = (line.enter("local") for _ in range(3))
    task = asyncio.create_task(gone.turn())
    await asyncio.sleep(0)
    running.leave()  # lets `gone` in, whose task has not run yet
    assert gone.state == "running"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (gone.state, next_one.state) == ("finished", "running")


@in_a_loop
async def test_who_waits_too_long_is_told_and_never_starts() -> None:
    line = Line(LineLimits(1, 4, timeout_s=0.05))
    running = line.enter("local")
    short, long = line.enter("local", timeout_s=0.01), line.enter("local", deadline_s=30.0)
    for ticket in (short, long):
        with pytest.raises(Busy, match=r"waited 0\.\d s") as refused:
            await asyncio.wait_for(ticket.turn(), 5)
        assert refused.value.kind == "queue_timeout"
        assert refused.value.retry_after_s is not None
    assert long.waited_s >= 0.05 > short.expires - short.entered
    running.leave()
    statistics = line.statistics()
    assert (statistics.timed_out_total, statistics.running, statistics.waiting) == (2, 0, 0)


@in_a_loop
async def test_nobody_is_let_in_after_their_time_even_if_the_timer_is_late() -> None:
    line, clock = line_of(max_concurrent=1, timeout_s=10.0)
    running, late, in_time = line.enter("local"), line.enter("local", deadline_s=3.0), line.enter("local")
    clock.advance(3.0)
    running.leave()
    assert (late.state, in_time.state) == ("timed_out", "running")


@in_a_loop
async def test_watchers_see_every_place_once() -> None:
    line, clock = line_of(max_concurrent=1)
    tickets = [line.enter("local") for _ in range(4)]

    async def watch(ticket: Ticket) -> list[Place]:
        return [place async for place in ticket.places()]

    watching = [asyncio.create_task(watch(ticket)) for ticket in (*tickets, tickets[3])]
    await asyncio.sleep(0)
    for ticket in tickets:
        clock.advance(2.0)
        ticket.leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    seen = await asyncio.gather(*watching)
    assert seen[0] == []
    assert seen[1] == [Place(1, 3, None)]
    assert seen[3] == seen[4] == [Place(3, 3, None), Place(2, 2, 4.0), Place(1, 1, 2.0)]


@in_a_loop
async def test_a_watcher_sleeps_while_only_the_estimate_moves() -> None:
    line = Line(LineLimits(1, 8), clock=FakeClock(tick=0.5))
    for _ in range(2):
        line.enter("local").leave()
    running, waiting = line.enter("local"), line.enter("local")
    seen: list[Place] = []

    async def watch() -> None:
        async for place in waiting.places():
            seen.append(place)
            assert len(seen) < 10

    watcher = asyncio.create_task(watch())
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(seen) == 1
    first, later = waiting.place.eta_s, waiting.place.eta_s
    assert first is not None and later is not None and first < later, "it moves with the clock"
    line.enter("local")
    running.leave()
    await asyncio.wait_for(watcher, 5)
    assert len(seen) <= 2


@in_a_loop
async def test_in_a_long_line_watchers_hear_of_some_steps_and_of_their_turn_at_once() -> None:
    line = Line(LineLimits(1, 100))
    tickets = [line.enter("local") for _ in range(61)]
    seen: list[list[int]] = [[] for _ in tickets]

    async def watch(number: int) -> None:
        async for place in tickets[number].places():
            seen[number].append(place.position)

    watching = [asyncio.create_task(watch(number)) for number in range(61)]
    for ticket in tickets[:30]:
        await asyncio.sleep(0)
        ticket.leave()
    assert sum(map(len, seen)) < 2 * 61, "60 watchers, 30 steps, and no moment between them"
    await asyncio.wait_for(watching[30], 5)
    assert tickets[30].state == "running"
    tickets[31].cancel()
    await asyncio.wait_for(watching[31], 5)
    await asyncio.sleep(0.4)
    assert seen[60][0] == 60
    assert seen[60][-1] == 29
    for ticket in tickets:
        ticket.cancel()
    await asyncio.wait_for(asyncio.gather(*watching), 5)


@in_a_loop
async def test_a_watcher_who_goes_away_harms_nobody() -> None:
    line, _ = line_of(max_concurrent=1)
    running, waiting = line.enter("local"), line.enter("local")

    async def watch() -> None:
        async for _ in waiting.places():
            pass

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert waiting.state == "waiting"
    running.leave()
    assert await waiting.turn() is True


@in_a_loop
async def test_what_is_measured_makes_the_estimates() -> None:
    line, clock = line_of(max_concurrent=2)
    tickets = [line.enter("local") for _ in range(5)]
    assert line.statistics().newcomer_eta_s is None
    clock.advance(8.0)
    tickets[0].leave()
    statistics = line.statistics()
    assert (statistics.mean_run_s, statistics.longest_wait_s, statistics.newcomer_eta_s) == (8.0, 8.0, 12.0)
    assert [ticket.place.eta_s for ticket in tickets[2:]] == [0.0, 4.0, 8.0]
    for ticket in tickets:
        ticket.leave()
    assert line.statistics().newcomer_eta_s == 0.0
    assert line.statistics().owners == 0


@in_a_loop
async def test_a_closed_line_refuses_who_waits_and_who_comes_and_lets_the_others_finish() -> None:
    line, _ = line_of(max_concurrent=1)
    running, waiting = line.enter("local"), line.enter("local")
    idle = asyncio.create_task(line.idle())
    line.close(Busy("The server is shutting down.", kind="shutting_down"))
    for _ in range(2):
        with pytest.raises(Busy, match="shutting down"):
            await waiting.turn()
    with pytest.raises(Busy, match="shutting down"):
        line.enter("local")
    assert (running.state, idle.done()) == ("running", False)
    running.leave()
    await asyncio.wait_for(idle, 5)


@in_a_loop
async def test_more_places_let_in_at_once_and_fewer_send_nobody_away() -> None:
    line, _ = line_of(max_concurrent=1)
    tickets = [line.enter("local") for _ in range(4)]
    line.resize(3)
    assert [ticket.state for ticket in tickets] == ["running"] * 3 + ["waiting"]
    line.resize(1)
    tickets[0].leave()
    tickets[1].leave()
    assert [ticket.state for ticket in tickets[2:]] == ["running", "waiting"]


@in_a_loop
async def test_what_makes_no_sense_is_refused_by_name() -> None:
    line, _ = line_of()
    for wrong, name in (
        ({"priority": 11}, "priority"),
        ({"priority": True}, "priority"),
        ({"deadline_s": 0.0}, "deadline_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
    ):
        with pytest.raises(InvalidRequest, match=name) as refused:
            line.enter("local", **wrong)  # type: ignore[arg-type]
        assert refused.value.param == name
    assert line.statistics().admitted_total == 0


HISTORY = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from("abc"), st.sampled_from([0, 0, 0, 1, -10, 10])),
        st.tuples(st.just("enter"), st.sampled_from("abc"), st.sampled_from([0, 0, 0, 1, -10, 10])),
        st.tuples(st.sampled_from(["cancel", "leave", "leave"]), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("pass"), st.sampled_from([1, 5, 12, 29]), st.just(0)),
    ),
    max_size=50,
)


@settings(max_examples=60, deadline=None)
@given(HISTORY, st.integers(1, 9), st.integers(0, 6))
def test_a_history_of_a_line_is_what_the_written_order_makes_of_it(history, places, waiting) -> None:
    """Every ticket ends one way only, the bounds hold, nobody is let in late, and the order is the written one."""

    async def play() -> None:
        line, clock = line_of(places, waiting, timeout_s=60.0)
        order = WrittenOrder(line.limits.aging_s)
        ours: dict[int, Ticket] = {}  # by their number in `order`
        running: list[Ticket] = []
        refused = 0

        def full(owner: str) -> bool:
            mine = sum(ticket.owner == owner for ticket in running)
            return len(running) == places or mine == places - places // 4

        def expect() -> None:
            for number, ticket in list(ours.items()):
                if ticket.expires <= clock.now:
                    order.leave(number, clock.now)
                    assert ours.pop(number).state == "timed_out"
            while len(running) < places and ours:
                number = order.take_next(clock.now, lambda owner: places - places // 4)
                if number is None:
                    assert all(full(ticket.owner) for ticket in ours.values())
                    break
                running.append(ours.pop(number))
                assert running[-1].state == "running"
            assert all(ticket.state == "waiting" for ticket in ours.values())
            standing = [ours[number] for number in order.standing(clock.now)]
            line.expire()
            assert positions(*standing) == list(range(1, len(ours) + 1))
            assert len(running) <= places and len(ours) <= waiting

        for what, one, other in history:
            if what == "enter":
                if full(one) and len(ours) == waiting:
                    with pytest.raises(Busy):
                        line.enter(one, priority=other)
                    refused += 1
                else:
                    ticket = line.enter(one, priority=other)
                    ours[order.join(one, other, clock.now)] = ticket
            elif what == "cancel" and ours:
                number = sorted(ours)[one % len(ours)]
                order.leave(number, clock.now)
                assert ours.pop(number).cancel()
            elif what == "leave" and running:
                ticket = running.pop(one % len(running))
                ticket.leave()
                order.finish(ticket.owner)
            elif what == "pass":
                clock.advance(one)
                line.expire()
            expect()
        statistics = line.statistics()
        assert (statistics.running, statistics.waiting) == (len(running), len(ours))
        assert statistics.refused_total == refused

    asyncio.run(play())


def test_a_flood_of_one_owner_costs_another_little() -> None:
    """FAULTS R06, in simulated time: 8 places, every request runs 1 s, 20 requests beside a flood of 200."""

    async def longest_waits(flood: int) -> list[float]:
        line, clock = line_of(8, 300)
        tickets = [line.enter("flood") for _ in range(flood)]
        ours = [line.enter("small") for _ in range(20)]
        tickets += ours
        while any(ticket.state == "waiting" for ticket in ours):
            running = [ticket for ticket in tickets if ticket.state == "running"]
            clock.advance(1.0)
            for ticket in running:
                ticket.leave()
        return sorted(ticket.waited_s for ticket in ours)

    idle, flooded = asyncio.run(longest_waits(0)), asyncio.run(longest_waits(200))
    first_token_s = 1.0  # even the idle ones wait for the end of their own step
    assert flooded[18] + first_token_s <= 3 * (idle[18] + first_token_s)
