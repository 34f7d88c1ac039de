"""Pulls through the real service from a hub on this machine: followed, left, listed, deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.asgi import Answer, Client
from api.conftest import Make
from fakehub import SLOW_MODEL, SLOW_WEIGHTS, FakeHub, slow_hub
from fakes import FakeOpener
from llm_local.config import load_config
from llm_local.service import Service

LIMIT_S = 30.0


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with slow_hub(monkeypatch) as hub:
        yield hub


@pytest.fixture
def client(make: Make, hub: FakeHub, tmp_path: Path) -> Iterator[Client]:
    config = load_config(environ={"MODEL_ID": "starter"}, env_file=None)
    service: Any = Service(config, opener=FakeOpener())
    made = make(service)
    yield made
    made.run(service.aclose())


def lines(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.body.splitlines()]


def test_a_model_comes_is_listed_and_goes(client: Client, hub: FakeHub) -> None:
    found = lines(client.ask("POST", "/api/pull", {"model": "hf.co/org/model:latest"}))
    bars = [line for line in found if "digest" in line]
    assert (
        bars[-1]["completed"] == bars[-1]["total"] > 2_000_000 and len({one["digest"] for one in bars}) == 1
    )
    assert [line["completed"] for line in bars] == sorted(line["completed"] for line in bars)
    assert found[-1] == {"status": "success"} and found[0] == {"status": "pulling manifest"}
    listed = {one["name"]: one for one in client.ask("GET", "/api/tags").json()["models"]}
    assert listed["org/model:latest"]["details"]["family"] == "llama"
    # it has no chat template, so it continues texts; the fake engine does so with the prompt itself
    said = client.ask("POST", "/api/generate", {"model": "org/model", "prompt": "ab", "stream": False}).json()
    assert (said["response"], said["context"]) == ("ab", [97, 98, 97, 98, 256])
    more = {"model": "org/model", "prompt": "c", "context": said["context"], "stream": False}
    assert client.ask("POST", "/api/generate", more).json()["prompt_eval_count"] == 6
    again = client.ask("POST", "/api/pull", {"name": "ORG/Model", "stream": False})
    assert again.json() == {"status": "success"}
    assert client.ask("DELETE", "/api/delete", {"model": "Org/Model:latest"}).status == 200
    assert "org/model:latest" not in client.ask("GET", "/api/tags").body.decode()


def test_what_the_hub_does_not_have(client: Client, hub: FakeHub) -> None:
    found = lines(client.ask("POST", "/api/pull", {"model": "org/none"}))
    assert found[-1]["error"] == "model 'org/none' not found"
    whole = client.ask("POST", "/api/pull", {"model": "org/none", "stream": False})
    assert (whole.status, whole.json()["error"]) == (404, "model 'org/none' not found")
    for name in ("https://evil.example/org/model", "../../etc/passwd"):
        assert client.ask("POST", "/api/pull", {"model": name, "stream": False}).status in (400, 404)


def test_who_leaves_ends_the_download(client: Client, hub: FakeHub) -> None:
    hub.bytes_per_s = 400_000
    service = client.app.state.service  # type: ignore[attr-defined]

    async def leave() -> None:
        call = asyncio.ensure_future(client.call("POST", "/api/pull", {"model": SLOW_MODEL}))
        async with asyncio.timeout(LIMIT_S):
            while not hub.asked(SLOW_WEIGHTS):
                await asyncio.sleep(0.01)
            client.gone.set()
            await call
            while service._shelf._pulls:
                await asyncio.sleep(0.01)

    client.run(leave())
    assert all(one.state != "complete" for one in client.run(service.models()) if one.name == SLOW_MODEL)
