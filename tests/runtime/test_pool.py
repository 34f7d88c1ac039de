"""The pool's laws, on models that are not there: what is loaded when, what goes, and who waits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from fakes import FakeClock, FakeOpener, give_names
from llm_local.config import load_config
from llm_local.errors import (
    Busy,
    EngineError,
    InsufficientMemory,
    InvalidRequest,
    ModelCorrupt,
    ModelNotFound,
)
from llm_local.runtime.pool import PATIENCE_S, ModelPool

LIMIT_S = 10.0
NAMES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def names(tmp_path):
    give_names(tmp_path, *NAMES)


def run(test, **settings):
    """Run `test(pool, opener, clock)` with a pool whose models are `a` to `d`; the default is `a`."""
    opener, clock = FakeOpener(settings.pop("sizes", {})), FakeClock()
    environ = {"MODEL_ID": "a", **{name.upper(): str(value) for name, value in settings.items()}}

    async def go():
        before = threading.active_count()
        pool = ModelPool(load_config(environ=environ, env_file=None), opener=opener, clock=clock)
        try:
            async with asyncio.timeout(LIMIT_S):
                await test(pool, opener, clock)
        finally:
            if opener.gate is not None:
                opener.gate.set()
            await pool.aclose()
        assert sorted(opener.closes) == sorted(opener.opened)
        await until(lambda: threading.active_count() <= before)

    asyncio.run(go())


async def until(condition):
    """Wait for something that another thread or task does."""
    while not condition():
        await asyncio.sleep(0.002)


def in_memory(pool):
    return {one.wanted.name for one in pool.residents()}


def test_fifty_first_requests_are_one_load():
    async def test(pool, opener, clock):
        opener.gate = threading.Event()
        tasks = [asyncio.create_task(pool.lease("b")) for _ in range(50)]
        await until(lambda: opener.loads)
        opener.gate.set()
        leases = await asyncio.gather(*tasks)
        assert opener.loads == ["b"]
        assert pool.find("b").requests == 50
        for lease in leases:
            lease.release()
            lease.release()
        assert pool.find("b").requests == 0

    run(test)


def test_two_names_of_one_model_are_one_model(tmp_path):
    async def test(pool, opener, clock):
        (await pool.lease(None)).release()
        (await pool.lease("a")).release()
        assert opener.loads == ["a"]

    run(test)


def test_who_goes_away_while_a_model_loads_holds_nothing_of_it():
    async def test(pool, opener, clock):
        opener.gate = threading.Event()
        gone, stays = asyncio.create_task(pool.lease("b")), asyncio.create_task(pool.lease("b"))
        await until(lambda: opener.loads)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        opener.gate.set()
        lease = await stays
        assert pool.find("b").requests == 1
        lease.release()

    run(test)


def test_a_load_that_nobody_waits_for_any_more_leaves_the_model_idle():
    async def test(pool, opener, clock):
        opener.gate = threading.Event()
        gone = asyncio.create_task(pool.lease("b"))
        await until(lambda: opener.loads)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        opener.gate.set()
        await until(lambda: in_memory(pool) == {"b"})
        assert pool.find("b").requests == 0

    run(test)


def test_who_goes_away_while_waiting_for_room_causes_no_load_and_nobody_goes():
    async def test(pool, opener, clock):
        busy = await pool.lease("a")
        waits = asyncio.create_task(pool.lease("b"))
        await until(lambda: pool.loading() and pool.loading()[0].waits_for_room_since is not None)
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)
        busy.release()
        await asyncio.sleep(0.05)
        assert opener.loads == ["a"] and not opener.closes and not pool.loading()
        # and whoever comes at that very moment gets the model
        busy = await pool.lease("a")
        gone, comes = asyncio.create_task(pool.lease("b")), None
        await until(lambda: pool.loading() and pool.loading()[0].waits_for_room_since is not None)
        gone.cancel()
        comes = asyncio.create_task(pool.lease("b"))
        busy.release()
        (await comes).release()
        assert opener.loads == ["a", "b"]

    run(test, max_loaded_models=1)


def test_a_model_in_use_never_goes_and_the_least_recently_used_one_does():
    async def test(pool, opener, clock):
        busy = await pool.lease("a")
        for name in ("b", "c"):
            (await pool.lease(name)).release()
        (await pool.lease("b")).release()
        (await pool.lease("d")).release()
        assert opener.closes == ["c"] and in_memory(pool) == {"a", "b", "d"}
        for name in ("c", "b", "d"):
            (await pool.lease(name)).release()
        assert "a" not in opener.closes
        busy.release()

    run(test, max_loaded_models=3)


def test_hot_swap_serves_everybody():
    async def test(pool, opener, clock):
        async def use(name):
            lease = await pool.lease(name)
            assert lease.resident.wanted.name == name
            assert lease.text.alive
            await asyncio.sleep(0)
            lease.release()

        await asyncio.gather(*(use("ab"[number % 2]) for number in range(40)))
        assert len(opener.loads) >= 2

    run(test, max_loaded_models=1)


def test_a_model_whose_users_overlap_does_not_keep_others_out_for_ever():
    async def test(pool, opener, clock):
        first = await pool.lease("a")
        waits = asyncio.create_task(pool.lease("b"))
        await until(lambda: pool.loading() and pool.loading()[0].waits_for_room_since is not None)
        second = await pool.lease("a")  # nobody has waited for long yet
        clock.advance(PATIENCE_S + 1)
        third = asyncio.create_task(pool.lease("a"))
        first.release()
        await asyncio.sleep(0.01)
        assert not third.done() and not waits.done()
        second.release()
        lease = await waits
        assert not third.done()
        lease.release()
        (await third).release()
        assert opener.loads == ["a", "b", "a"]

    run(test, max_loaded_models=1)


def test_room_is_made_by_memory_too_and_no_more_than_needed():
    async def test(pool, opener, clock):
        for name in ("a", "b", "c"):
            (await pool.lease(name)).release()
        (await pool.lease("d")).release()  # 300 + 300 + 300, and now 350
        assert opener.closes == ["a"] and in_memory(pool) == {"b", "c", "d"}

    run(test, max_loaded_models=9, sizes=dict.fromkeys("abc", 300) | {"d": 350})


def test_what_can_never_fit_is_refused_at_once_and_nobody_goes_for_it():
    async def test(pool, opener, clock):
        busy = await pool.lease("a")
        (await pool.lease("b")).release()
        with pytest.raises(InsufficientMemory):
            await pool.lease("d")
        assert opener.loads == ["a", "b"] and not opener.closes
        busy.release()

    run(test, sizes={"d": 2000})


def test_a_budget_bounds_all_models_together():
    async def test(pool, opener, clock):
        (await pool.lease("a")).release()
        (await pool.lease("b")).release()
        assert opener.closes == ["a"]
        with pytest.raises(InsufficientMemory):
            await pool.lease("c")

    size = 700 << 10
    opener_total = {"a": size, "b": size, "c": 2 << 20}

    async def larger(pool, opener, clock):
        opener.total_bytes = 1 << 40
        await test(pool, opener, clock)

    run(larger, sizes=opener_total, model_memory_mb=1)


def test_a_load_that_fails_is_told_to_all_who_wait_and_tried_again():
    async def test(pool, opener, clock):
        opener.errors["b"] = [ModelCorrupt("damaged")]
        opener.gate = threading.Event()
        tasks = [asyncio.create_task(pool.lease("b")) for _ in range(3)]
        await until(lambda: opener.loads)
        opener.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in results] == [ModelCorrupt] * 3
        assert opener.loads == ["b"]
        lease = await pool.lease("b")
        lease.release()
        opener.errors["c"] = [ZeroDivisionError("by zero")]
        with pytest.raises(EngineError, match="could not be loaded: ZeroDivisionError"):
            await pool.lease("c")

    run(test)


def test_idle_models_go_after_their_time_which_counts_from_the_last_use():
    async def test(pool, opener, clock):
        lease = await pool.lease("b", 10.0)
        clock.advance(1000)  # a long generation
        pool.sweep()
        assert in_memory(pool) == {"b"}
        lease.release()
        clock.advance(9)
        pool.sweep()
        assert in_memory(pool) == {"b"} and pool.find("b").facts(clock()).expires_in_s == 1.0
        clock.advance(1)
        pool.sweep()
        await until(lambda: opener.closes == ["b"])
        await until(lambda: opener.released == 1)

    run(test)


def test_keep_alive_of_zero_and_for_ever_and_of_the_service_own_model():
    async def test(pool, opener, clock):
        (await pool.lease("b", 0)).release()
        assert in_memory(pool) == set()
        (await pool.lease("c", -1)).release()
        (await pool.lease(None)).release()
        (await pool.lease("d")).release()
        clock.advance(1e6)
        pool.sweep()
        assert in_memory(pool) == {"a", "c"}
        assert await pool.unload("c") and not await pool.unload("b")
        assert in_memory(pool) == {"a"}

    run(test)


def test_the_own_model_is_ready_also_when_it_went_for_want_of_use_but_not_when_it_cannot_come_back():
    async def test(pool, opener, clock):
        assert not pool.readiness().ready
        (await pool.lease(None)).release()
        clock.advance(10)
        pool.sweep()
        assert in_memory(pool) == set() and pool.readiness().ready
        (await pool.lease("b", -1)).release()  # takes its place
        assert pool.readiness().ready
        opener.errors["a"] = [EngineError("The disk is broken.")]
        with pytest.raises(EngineError):
            await pool.lease(None)
        assert pool.readiness().reason == "a is not in memory."
        (await pool.lease(None)).release()
        assert pool.readiness().ready

    run(test, keep_alive_s=5, max_loaded_models=1)


def test_a_timer_sweeps():
    async def test(pool, opener, clock):
        (await pool.lease("b", 0.01)).release()
        clock.tick = 1.0  # from now on every look is a second later
        await until(lambda: opener.closes == ["b"])

    run(test)


def test_a_model_in_use_is_unloaded_when_it_is_idle():
    async def test(pool, opener, clock):
        lease = await pool.lease("b")
        assert await pool.unload("b")
        assert in_memory(pool) == {"b"}
        lease.release()
        assert in_memory(pool) == set()

    run(test)


def test_a_lease_that_is_forgotten_is_given_back():
    async def test(pool, opener, clock):
        lease = await pool.lease("b")
        assert lease.again().resident is lease.resident
        del lease
        await until(lambda: pool.find("b").requests == 0)

    run(test)


def kill(opener, name):
    """Have the engine of a model die, as a device that is lost does."""

    def step():
        raise SystemError("the device is lost")

    engine = opener.engines[name]
    engine.step = step
    engine.has_work = lambda: True


async def died(pool, opener, name):
    resident = pool.find(name)
    kill(opener, name)
    resident.memory.worker.cancel("wake up")
    await until(lambda: not resident.memory.alive)


def test_a_dead_engine_is_started_anew_and_three_deaths_are_enough():
    async def test(pool, opener, clock):
        for _ in range(3):
            lease = await pool.lease("b")
            await died(pool, opener, "b")
            lease.release()
            assert pool.find("b") is None
            clock.advance(5)  # beyond the time before a restart
        assert opener.loads == ["b"] * 3
        with pytest.raises(Busy) as raised:
            await pool.lease("b")
        assert raised.value.kind == "model_quarantined" and raised.value.retry_after_s == 295.0
        (await pool.lease("c")).release()
        (await pool.lease("b", retry=True)).release()
        assert opener.loads == ["b"] * 3 + ["c", "b"]

    run(test)


def test_a_dead_engine_that_nobody_used_is_found_by_the_next_one_and_the_own_model_comes_back_by_itself():
    async def test(pool, opener, clock):
        (await pool.lease("b")).release()
        await died(pool, opener, "b")
        clock.advance(5)
        (await pool.lease("b")).release()
        lease = await pool.lease(None)
        assert pool.readiness().ready
        await died(pool, opener, "a")
        lease.release()
        assert not pool.readiness().ready
        await until(lambda: pool.readiness().ready)
        assert opener.loads == ["b", "b", "a", "a"]

    run(test)


def test_the_own_model_stays_away_too_after_three_deaths():
    async def test(pool, opener, clock):
        for _ in range(3):
            lease = await pool.lease(None)
            await died(pool, opener, "a")
            lease.release()
            clock.advance(5)
        await asyncio.sleep(0.05)
        assert opener.loads == ["a"] * 3 and "3 times" in pool.readiness().reason
        clock.advance(300)
        (await pool.lease(None)).release()
        assert pool.readiness().ready
        with pytest.raises(InvalidRequest):
            await pool.lease(None, float("nan"))

    run(test)


@pytest.mark.parametrize("name", ["./model-a", "..", "/etc", "~", "nobody", "org/nothing", ""])
def test_only_names_of_models_that_are_here(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    async def test(pool, opener, clock):
        with pytest.raises(ModelNotFound):
            await pool.lease(name)
        with pytest.raises(ModelNotFound):
            await pool.lease("model-b")  # a folder that is there, by its relative path
        assert not opener.loads

    run(test)


def test_a_closed_pool_gives_nothing_and_frees_who_waits():
    async def test(pool, opener, clock):
        busy = await pool.lease("a")
        waits = asyncio.create_task(pool.lease("b"))
        await until(lambda: pool.loading() and pool.loading()[0].waits_for_room_since is not None)
        began = time.monotonic()
        await pool.aclose()
        assert time.monotonic() - began < LIMIT_S
        with pytest.raises(EngineError) as raised:
            await waits
        assert raised.value.kind == "shutting_down"
        with pytest.raises(EngineError):
            await pool.lease("a")
        with pytest.raises(EngineError, match="not in memory any more"):
            _ = busy.text
        busy.release()

    run(test, max_loaded_models=1)
