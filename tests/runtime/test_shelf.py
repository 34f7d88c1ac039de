"""The store as a service shows it: downloads that several follow, and models that go while others are used."""

from __future__ import annotations

import asyncio

import pytest

from fakehub import SLOW_MODEL, SLOW_WEIGHTS, slow_hub
from fakes import FakeOpener, give_names
from llm_local.config import load_config
from llm_local.errors import Busy, HubUnavailable, InvalidRequest, ModelNotFound
from llm_local.runtime.pool import ModelPool
from llm_local.runtime.shelf import Shelf
from llm_local.store.snapshots import find_local

LIMIT_S = 30.0


@pytest.fixture
def hub(monkeypatch):
    """A hub whose line is slow enough to be followed, with one model."""
    with slow_hub(monkeypatch) as hub:
        yield hub


def run(test, **settings):
    async def go():
        environ = {"MODEL_ID": "a", **{name.upper(): value for name, value in settings.items()}}
        config = load_config(environ=environ, env_file=None)
        pool = ModelPool(config, opener=FakeOpener())
        shelf = Shelf(config, pool)
        try:
            async with asyncio.timeout(LIMIT_S):
                await test(shelf, pool)
        finally:
            await shelf.aclose()
            await pool.aclose()

    asyncio.run(go())


async def follow(shelf, name=SLOW_MODEL):
    return [progress async for progress in shelf.pull(name)]


def weights_asked(hub):
    """Requests for weights themselves, not for their header alone."""
    return [one for one in hub.asked(SLOW_WEIGHTS) if not one.headers.get("range", "").startswith("bytes=0-")]


def test_many_who_pull_one_model_follow_one_download(hub):
    async def test(shelf, pool):
        found = await asyncio.gather(*(follow(shelf) for _ in range(5)))
        assert all(one[-1].done == one[-1].total > 2_000_000 for one in found)
        assert len(weights_asked(hub)) == 1
        assert find_local(SLOW_MODEL) is not None
        [known] = [one for one in await shelf.models() if one.name == SLOW_MODEL]
        assert known.state == "complete" and known.architecture == "LlamaForCausalLM"

    run(test)


def test_a_download_goes_on_for_those_who_stay_and_ends_with_the_last(hub):
    async def test(shelf, pool):
        leaves, stays = shelf.pull(SLOW_MODEL), asyncio.create_task(follow(shelf))
        await anext(leaves)
        await leaves.aclose()
        assert (await stays)[-1].stage == "downloading" and find_local(SLOW_MODEL) is not None
        await shelf.delete(SLOW_MODEL)
        assert find_local(SLOW_MODEL) is None
        hub.bytes_per_s = 500_000
        last = shelf.pull(SLOW_MODEL)
        await anext(last)
        await last.aclose()
        while shelf._pulls:
            await asyncio.sleep(0.01)
        assert find_local(SLOW_MODEL) is None

    run(test)


def test_failures_are_told_to_everybody(hub):
    async def test(shelf, pool):
        results = await asyncio.gather(
            follow(shelf, "org/other"), follow(shelf, "org/other"), return_exceptions=True
        )
        assert {type(one) for one in results} == {ModelNotFound}
        for name, kind in (("starter", InvalidRequest), ("https://evil.example/org/model", InvalidRequest)):
            with pytest.raises(kind):
                await follow(shelf, name)

    run(test)


def test_nothing_is_fetched_offline():
    async def test(shelf, pool):
        with pytest.raises(HubUnavailable, match="switched off"):
            await follow(shelf)

    run(test, offline="true")


def test_a_model_in_use_is_not_removed_and_an_idle_one_leaves_the_memory(tmp_path, hub):
    give_names(tmp_path, "a")

    async def test(shelf, pool):
        await follow(shelf)
        lease = await pool.lease(SLOW_MODEL)
        with pytest.raises(Busy) as raised:
            await shelf.delete(SLOW_MODEL)
        assert raised.value.kind == "model_in_use" and find_local(SLOW_MODEL) is not None
        lease.release()
        await shelf.delete(SLOW_MODEL)
        assert find_local(SLOW_MODEL) is None and pool.find(SLOW_MODEL) is None

    run(test)


def test_folders_are_no_names_here(tmp_path, monkeypatch):
    give_names(tmp_path, "a")
    monkeypatch.chdir(tmp_path)

    async def test(shelf, pool):
        for name in ("./model-a", "model-a", str(tmp_path / "model-a")):
            for refused in (shelf.show(name), shelf.copy(name, "other"), shelf.delete(name)):
                with pytest.raises(ModelNotFound):
                    await refused
        assert (await shelf.show("a")).known.kind == "directory"

    run(test)
