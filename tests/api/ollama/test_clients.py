"""Ollama's own clients against a real server with the starter model."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pydantic
import pytest
from ollama import AsyncClient, Client

from api.live_server import LiveServer, free_port, running_server

MODEL = "starter"
HELLO: Any = [{"role": "user", "content": "Hello!"}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY: Any = [{"role": "user", "content": "Give me a JSON object with name Paris and country France."}]
GREEDY: Any = {"temperature": 0}
ENDLESS: Any = {"temperature": 2.0, "top_k": 0, "num_predict": 1900}
NUMBERS: Any = {"type": "array", "items": {"type": "integer"}, "minItems": 500}
SCRIPT = Path(__file__).with_name("ollama_js.mjs")
FAKE_SERVER = Path(__file__).resolve().parents[1] / "fake_server.py"
PACKAGES = os.environ.get("NODE_MODULES_FOLDER", "")


class City(pydantic.BaseModel):
    name: str
    country: str


def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name
    """
    return f"sunny, 21 degrees in {city}"


@pytest.fixture
def client(live_server: LiveServer) -> Iterator[Client]:
    made = Client(live_server.base_url)
    yield made
    made.close()


def places_taken(server: LiveServer) -> int:
    status, stats = server.ask("GET", "/queue/stats")
    assert status == 200
    lines = stats["lines"].values() if "lines" in stats else [stats]
    return sum(line["running"] + line["waiting"] for line in lines)


def wait_until_free(server: LiveServer, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while places_taken(server):
        assert time.monotonic() < end, "places are still held"
        time.sleep(0.05)


def test_models(client: Client) -> None:
    listed = {one.model: one for one in client.list().models}
    starter = listed[f"{MODEL}:latest"]
    assert starter.size and starter.digest and len(starter.digest) == 64 and starter.modified_at
    assert starter.details is not None and starter.details.parameter_size == "4.1M"
    shown = client.show(f"{MODEL}:latest")
    assert shown.modelinfo is not None and shown.capabilities is not None
    architecture = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{architecture}.context_length"] == 2048
    assert {"completion", "tools"} <= set(shown.capabilities) and "messages" in (shown.template or "")
    client.generate(MODEL, "Hello!", options={"num_predict": 1})
    client.embed(MODEL, "x")
    (running,) = client.ps().models
    assert running.name == f"{MODEL}:latest"
    assert running.size and running.expires_at is not None and running.context_length == 2048
    with pytest.raises(ollama.ResponseError) as caught:
        client.show("org/nope")
    assert (caught.value.status_code, caught.value.error) == (404, "model 'org/nope' not found")


def test_a_stream_is_the_whole_answer(client: Client) -> None:
    options: Any = {"seed": 5, "temperature": 1.2, "num_predict": 24}
    whole = client.chat(MODEL, HELLO, options=options)
    *parts, end = client.chat(MODEL, HELLO, options=options, stream=True)
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert end.done and end.done_reason == whole.done_reason
    assert (end.prompt_eval_count, end.eval_count) == (whole.prompt_eval_count, whole.eval_count)
    assert end.total_duration is not None and end.total_duration > (end.eval_duration or 0) > 0
    said = client.generate(MODEL, "Hello!", options=options)
    assert said.response == whole.message.content
    assert (
        "".join(part.response for part in client.generate(MODEL, "Hello!", options=options, stream=True))
        == said.response
    )


def test_caps_and_stops(client: Client) -> None:
    cut = client.generate(MODEL, "Hello!", options={**GREEDY, "num_predict": 3})
    assert (cut.eval_count, cut.done_reason) == (3, "length")
    whole = client.generate(MODEL, "Hello!", options={**GREEDY, "num_predict": 10**9})
    assert whole.done_reason == "stop"
    stopped = client.generate(MODEL, "Hello!", options={**GREEDY, "stop": [whole.response[8:12]]})
    assert stopped.response == whole.response[:8] and stopped.done_reason == "stop"


def test_there_is_one_logprob_for_each_token(client: Client) -> None:
    whole = client.chat(MODEL, HELLO, options=GREEDY, logprobs=True, top_logprobs=2)
    assert whole.logprobs is not None and len(whole.logprobs) == whole.eval_count
    text = "".join(one.token for one in whole.logprobs[:-1])  # the last is the end token
    assert text == whole.message.content
    assert all(one.top_logprobs is not None and len(one.top_logprobs) == 2 for one in whole.logprobs)
    parts = client.chat(MODEL, HELLO, options=GREEDY, logprobs=True, top_logprobs=2, stream=True)
    assert [one.token for part in parts for one in part.logprobs or ()] == [
        one.token for one in whole.logprobs
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_round_trip(client: Client, stream: bool) -> None:
    asked: Any = {"model": MODEL, "tools": [get_weather], "options": GREEDY}
    if stream:
        parts = list(client.chat(messages=WEATHER, stream=True, **asked))
        (message,) = [part.message for part in parts if part.message.tool_calls]
        assert parts[-1].done_reason == "stop" and not parts[-1].message.tool_calls
    else:
        message = client.chat(messages=WEATHER, **asked).message
    (call,) = message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    result = {
        "role": "tool", "tool_name": call.function.name, "content": get_weather(**call.function.arguments),
    }  # fmt: skip
    answer = client.chat(messages=[*WEATHER, message, result], **asked).message
    assert "sunny" in (answer.content or "") and not answer.tool_calls


def test_formats(client: Client) -> None:
    found = client.chat(MODEL, CITY, format=City.model_json_schema(), options=GREEDY)
    assert City.model_validate_json(found.message.content or "") == City(name="Paris", country="France")
    parts = client.chat(MODEL, CITY, format=City.model_json_schema(), options=GREEDY, stream=True)
    assert "".join(part.message.content or "" for part in parts) == found.message.content
    loose = client.generate(MODEL, CITY[0]["content"], format="json", options={**GREEDY, "num_predict": 100})
    assert isinstance(json.loads(loose.response), dict)
    with pytest.raises(ollama.ResponseError, match="invalid format") as caught:
        client._request_raw("POST", "/api/chat", json={"model": MODEL, "messages": HELLO, "format": "xml"})
    assert caught.value.status_code == 400


def test_embeddings(client: Client) -> None:
    found = client.embed(MODEL, ["The sky is blue.", "Grass is green."])
    assert len(found.embeddings) == 2 and found.prompt_eval_count and found.prompt_eval_count > 2
    assert all(sum(x * x for x in vector) == pytest.approx(1.0) for vector in found.embeddings)
    alone = client.embed(MODEL, "The sky is blue.").embeddings[0]
    assert alone == pytest.approx(found.embeddings[0], abs=1e-5)
    assert len(client.embed(MODEL, "x", dimensions=8).embeddings[0]) == 8
    assert len(client.embeddings(MODEL, "The sky is blue.").embedding) == len(alone)
    assert client.embed(MODEL, "").embeddings == []
    long = "word " * 3000
    assert len(client.embed(MODEL, long).embeddings[0]) == len(alone)
    with pytest.raises(ollama.ResponseError, match="the input length exceeds the context length") as caught:
        client.embed(MODEL, long, truncate=False)
    assert caught.value.status_code == 400


def test_the_context_of_an_answer_goes_on(live_server: LiveServer, client: Client) -> None:
    first = client.generate(MODEL, "Hello!", options=GREEDY)
    assert first.context is not None
    assert len(first.context) == (first.prompt_eval_count or 0) + (first.eval_count or 0)
    again = client.generate(MODEL, "What can you do?", context=first.context, options=GREEDY)
    alone = client.generate(MODEL, "What can you do?", options=GREEDY)
    assert again.context is not None and alone.context is not None
    assert list(again.context)[: len(first.context)] == list(first.context)
    assert again.prompt_eval_count == len(first.context) + (alone.prompt_eval_count or 0)
    assert again.response
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate(MODEL, "x", context=[10**9])
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="raw mode does not support"):
        client.generate(MODEL, "x", context=[1], raw=True)
    status, long = live_server.ask(
        "POST", "/api/generate", {"model": MODEL, "prompt": "x", "context": [40] * 2048}
    )
    assert status == 400 and long["error"].startswith("the input length exceeds the context length")


def test_raw_takes_the_prompt_as_it_is(client: Client) -> None:
    raw = client.generate(
        MODEL, "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", raw=True, options=GREEDY
    )
    assert raw.response == client.generate(MODEL, "Hello!", options=GREEDY).response
    assert raw.context is None


def test_a_chat_that_is_too_long_loses_its_oldest_turns_and_says_so(live_server: LiveServer) -> None:
    turns = [
        {"role": role, "content": f"{number} " + "word " * 120}
        for number in range(12)
        for role in ("user", "assistant")
    ]
    body = {
        "model": MODEL, "messages": [{"role": "system", "content": "Be brief."}, *turns, *HELLO],
        "options": {"num_predict": 4},
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", live_server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/api/chat", json.dumps(body))
        response = connection.getresponse()
        trimmed = response.getheader("x-llm-local-context-trimmed") or ""
        *_, end = [json.loads(line) for line in response.read().splitlines()]
    assert response.status == 200 and trimmed.startswith("messages=")
    assert end["prompt_eval_count"] <= 2048 and any("left out" in one for one in end["warnings"])
    status, refused = live_server.ask("POST", "/api/chat", {**body, "truncate": False})
    assert status == 400 and refused["error"].startswith("the input length exceeds the context length")
    one = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 3000}]}
    status, refused = live_server.ask("POST", "/api/chat", one)
    assert status == 400 and refused["error"].startswith("the input length exceeds the context length")


def test_copies_and_what_is_here_already(client: Client) -> None:
    assert client.copy(MODEL, "a-copy").status == "success"
    try:
        assert "a-copy:latest" in [one.model for one in client.list().models]
        assert (
            client.generate("A-Copy:latest", "Hello!", options=GREEDY).response
            == client.generate(MODEL, "Hello!", options=GREEDY).response
        )
        with pytest.raises(ollama.ResponseError) as caught:
            client.copy(MODEL, "a-copy")
        assert caught.value.status_code == 400
    finally:
        assert client.delete("a-copy").status == "success"
    for act in (lambda: client.delete("a-copy"), lambda: client.copy("a-copy", "other")):
        with pytest.raises(ollama.ResponseError) as caught:
            act()
        assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as caught:
        client.delete(MODEL)
    assert caught.value.status_code == 400
    assert [one.status for one in client.pull(MODEL, stream=True)][-1] == "success"
    for stream in (True, False):  # this server is offline
        with pytest.raises(ollama.ResponseError, match="hub is switched off"):
            list(client.pull("org/name", stream=stream))


def test_what_is_refused(client: Client) -> None:
    def ask(**more: Any) -> None:
        client.chat(MODEL, HELLO, **more)

    for more, words in (
        ({"think": True}, '"starter" does not support thinking'),
        ({"options": {"temperature": 99}}, "options.temperature is 99"),
        ({"options": {"repeat_penalty": 1.3, "repeat_last_n": 64}}, "options.repeat_last_n"),
        ({"keep_alive": "soon"}, "keep_alive is no duration"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            ask(**more)
        assert caught.value.status_code == 400 and caught.value.error.startswith(words)
        with pytest.raises(ollama.ResponseError):
            list(client.chat(MODEL, HELLO, stream=True, **more))
    with pytest.raises(ollama.ResponseError, match="does not support images"):
        client.generate(MODEL, "x", images=[b"picture"])
    client.chat(MODEL, HELLO, think=False, options={"num_predict": 1})


def test_many_at_once_answer_as_alone(live_server: LiveServer) -> None:
    async def answer(client: AsyncClient, seed: int) -> str:
        options: Any = {"seed": seed, "temperature": 1.5, "num_predict": 16}
        parts = await client.chat(MODEL, HELLO, options=options, stream=True)
        return "".join([part.message.content or "" async for part in parts])

    async def run() -> None:
        client = AsyncClient(live_server.base_url)
        alone = [await answer(client, seed) for seed in range(6)]
        assert await asyncio.gather(*(answer(client, seed) for seed in range(6))) == alone
        await client.close()

    asyncio.run(run())


def test_who_leaves_frees_its_place(live_server: LiveServer, client: Client) -> None:
    for seed in range(4):
        stream = client.generate(
            MODEL, "Hello!", stream=True, format=NUMBERS, options={**ENDLESS, "seed": seed}
        )
        next(iter(stream))
        assert places_taken(live_server) >= 1
        stream.close()
    body = json.dumps({"model": MODEL, "prompt": "x", "format": NUMBERS, "options": ENDLESS, "stream": False})
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", live_server.port, timeout=60)
        connection.request("POST", "/api/generate", body)
        time.sleep(0.2)
        connection.close()
    wait_until_free(live_server, 5.0)


def test_loading_and_unloading(client: Client) -> None:
    def stays() -> list[float]:
        found = [one.expires_at for one in client.ps().models]
        return [when.timestamp() - time.time() for when in found if when is not None]

    try:
        assert client.generate(MODEL, "Hello!", options=GREEDY, keep_alive="90s").response
        assert any(80 < left < 91 for left in stays())
        unloaded = client.generate(MODEL, keep_alive=0)
        assert (unloaded.response, unloaded.done_reason) == ("", "unload")
        assert stays() == []
        loaded = client.chat(MODEL, [], keep_alive="1h")
        assert (loaded.message.content, loaded.done_reason) == ("", "load")
        assert all(3000 < left < 3601 for left in stays()) and len(stays()) == 1
        assert client.chat(MODEL, HELLO, keep_alive=0, options=GREEDY).message.content
        end = time.monotonic() + 10
        while stays():
            assert time.monotonic() < end, "it should have gone after its answer"
            time.sleep(0.05)
        with pytest.raises(ollama.ResponseError) as caught:
            client.generate("nope", keep_alive=0)
        assert caught.value.status_code == 404
    finally:
        assert client.generate(MODEL, keep_alive=-1).done_reason == "load"
    assert stays()[0] > 10**9


def test_the_port_for_ollamas_programs(tmp_path: Path) -> None:
    port = free_port()
    with running_server(tmp_path, "--ollama-port", str(port), script=FAKE_SERVER) as server:
        there = Client(f"http://127.0.0.1:{port}")
        version = there._request_raw("GET", "/api/version").json()
        assert there._request_raw("GET", "/").text == "Ollama is running"
        assert there._request_raw("HEAD", "/").status_code == 200
        assert there.chat("fake", HELLO).message.content == "Hello"
        there.close()
        assert server.ask("GET", "/")[1]["name"] == "llm-local"  # the main port is ours
        assert server.ask("GET", "/api/version") == (200, version)


@pytest.mark.skipif(
    not (shutil.which("node") and (Path(PACKAGES) / "ollama").is_dir()),
    reason="needs node, and in NODE_MODULES_FOLDER a folder node_modules with the npm package ollama",
)
def test_the_npm_client(live_server: LiveServer) -> None:
    environment = {**os.environ, "BASE_URL": live_server.base_url, "NODE_MODULES_FOLDER": PACKAGES}
    run = subprocess.run(["node", str(SCRIPT)], capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert f"{MODEL}:latest" in found["models"] and f"{MODEL}:latest" in found["running"]
    assert found["streamed"] == found["whole"] == found["generated"]
    assert found["streamedCount"] == found["count"] and found["loaded"] == "load"
    assert found["call"] == {"index": 0, "name": "get_weather", "arguments": {"city": "Paris"}}
    assert "sunny" in found["answered"]
    assert found["parsed"] == {"name": "Paris", "country": "France"}
    assert found["embedding"][0] == found["embedding"][1] > 1 and found["shown"] == "qwen3"
    assert (found["copied"], found["deleted"]) == ("success", "success")
    assert found["pulled"][-1] == "success"
    assert found["unknown"] == [404, "model 'nope' not found"]
    assert found["aborted"] == "AbortError"
    wait_until_free(live_server)
