"""Streams as bytes: framing, exactly one terminal, and an iterator that is closed whatever happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response

from api.asgi import Client
from llm_local.api import streams
from llm_local.api.disconnect import ClientGone
from llm_local.api.errors import Envelope, Envelopes, Failure, NativeEnvelope
from llm_local.api.lifecycle import Lifecycle
from llm_local.api.observe import Failures, Observed
from llm_local.api.streams import DONE, SseEvent, ndjson, sse
from llm_local.errors import EngineError


class Chunks:
    """Yields what it was given: None waits for ever, an exception is raised. `closed` counts."""

    def __init__(self, *chunks: Any) -> None:
        self._chunks = list(chunks)
        self.closed = 0

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> Any:
        if not self._chunks:
            raise StopAsyncIteration
        chunk = self._chunks.pop(0)
        if isinstance(chunk, BaseException):
            raise chunk
        if chunk is None:
            await asyncio.Event().wait()
        return chunk

    async def aclose(self) -> None:
        self.closed += 1


class Shout(Envelope):
    """A dialect of one word."""

    def body(self, failure: Failure) -> dict[str, Any]:
        return {"error": failure.kind.upper()}


@pytest.fixture
def chunks() -> Chunks:
    return Chunks()


@pytest.fixture
def client(chunks: Chunks) -> Iterable[Client]:
    app = FastAPI()
    app.state.lifecycle = Lifecycle(0.2)
    app.state.envelopes = Envelopes({"/loud": Shout()})

    @app.get("/sse")
    @app.get("/loud/sse")
    async def events(request: Request) -> Response:
        return sse(request, chunks, headers={"x-own": "1"})

    @app.get("/own")
    async def own(request: Request) -> Response:
        return sse(request, chunks, on_error=lambda failure: SseEvent({"k": failure.kind}, "oh"))

    @app.get("/lines")
    async def lines(request: Request) -> Response:
        return ndjson(request, chunks, on_error=lambda failure: None)

    client = Client(Observed(Failures(app)))  # type: ignore[arg-type]
    client.app_state = app.state  # type: ignore[attr-defined]
    yield client
    client.close()


def give(chunks: Chunks, *given: Any) -> Chunks:
    chunks._chunks.extend(given)
    return chunks


def test_every_kind_of_chunk_is_framed(client: Client, chunks: Chunks) -> None:
    give(chunks, {"a": "\u00e9\n"}, SseEvent([1], "named", "7"), SseEvent("plain\ntext"), DONE)
    answer = client.ask("GET", "/sse")
    assert answer.body.decode() == (
        'data: {"a":"\u00e9\\n"}\n\nid: 7\nevent: named\ndata: [1]\n\ndata: plain\ndata: text\n\ndata: [DONE]\n\n'
    )
    assert answer.headers["cache-control"] == "no-cache" and answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["content-type"].startswith("text/event-stream") and answer.headers["x-own"] == "1"
    assert answer.parts[-1] == b"" and chunks.closed == 1


def test_lines_of_json_end_where_every_client_sees_their_end(client: Client, chunks: Chunks) -> None:
    give(chunks, {"text": "a\u2028b\x85c\u2029\ud800"}, {"done": True})
    answer = client.ask("GET", "/lines")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = answer.body.decode().splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "a\u2028b\x85c\u2029\ufffd"}, {"done": True}]


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/loud/sse", b'data: {"error":"ENGINE_ERROR"}\n\n'),
        ("/own", b'event: oh\ndata: {"k":"engine_error"}\n\n'),
        ("/lines", b'{"n":1}\n'),
    ],
)
def test_a_failure_is_the_dialects_last_chunk(client: Client, chunks: Chunks, path: str, last: bytes) -> None:
    give(chunks, {"n": 1}, EngineError("Broken."), {"n": 2})
    answer = client.ask("GET", path)
    assert answer.body.endswith(last) and b'"n":2' not in answer.body and answer.parts[-1] == b""
    assert chunks.closed == 1


def test_what_nobody_expected_tells_nothing(client: Client, chunks: Chunks) -> None:
    give(chunks, ZeroDivisionError("canary"))
    assert b"internal_error" in client.ask("GET", "/sse").body
    give(chunks, {"a": float("nan")})
    assert b"internal_error" in client.ask("GET", "/sse").body


def test_silence_is_filled_where_clients_skip_it(
    client: Client, chunks: Chunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.02)

    async def listen(path: str) -> bytes:
        give(chunks, None)
        client.gone.clear()
        asking = asyncio.ensure_future(client.call("GET", path))
        await asyncio.sleep(0.15)
        client.gone.set()
        return (await asking).body

    pings = client.run(listen("/sse"))
    assert pings.count(b": ping\n\n") >= 2 and pings.replace(b": ping\n\n", b"") == b""
    assert client.run(listen("/lines")) == b""
    assert chunks.closed == 2


def test_the_end_of_the_grace_ends_a_stream_in_words(client: Client, chunks: Chunks) -> None:
    async def end() -> bytes:
        give(chunks, {"n": 1}, None)
        client.app_state.lifecycle.begin_drain(asyncio.get_running_loop())  # type: ignore[attr-defined]
        return (await client.call("GET", "/sse")).body

    body = client.run(end())
    assert body.startswith(b'data: {"n":1}\n\n') and b'"kind":"shutting_down"' in body


def test_a_reader_that_takes_nothing_ends_the_stream(
    chunks: Chunks, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SEND_TIMEOUT_S", 0.05)
    cut = []

    async def stuck() -> None:
        answer = sse(_request(client), give(chunks, {"n": 1}))
        started = asyncio.Event()

        async def send(message: Any) -> None:
            if started.is_set():
                await asyncio.Event().wait()
            started.set()

        scope = {"type": "http", "llm_local.abort": lambda: cut.append(True)}
        await answer(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]

    with pytest.raises(ClientGone):
        client.run(stuck())
    assert cut == [True] and chunks.closed == 1


def _request(client: Client) -> Any:
    class Stub:
        class app:  # noqa: N801
            state = client.app_state  # type: ignore[attr-defined]

    return Stub


def test_the_longest_prefix_decides_how_a_failure_is_worded() -> None:
    one, two = Shout(), Shout()
    envelopes = Envelopes({"/v1": one, "/v1/messages": two})
    assert envelopes.of("/v1") is envelopes.of("/v1/chat") is envelopes.of("/v1/messagesx") is one
    assert envelopes.of("/v1/messages") is envelopes.of("/v1/messages/count_tokens") is two
    for path in ("/", "/v10", "/x/v1", "", "/v"):
        assert isinstance(envelopes.of(path), NativeEnvelope)


def test_the_grace_is_counted_from_the_first_signal() -> None:
    async def drain() -> tuple[float, float]:
        lifecycle = Lifecycle(0.1)
        whole = lifecycle.left_s
        lifecycle.begin_drain(asyncio.get_running_loop())
        assert lifecycle.draining and not lifecycle.over.is_set()
        await asyncio.sleep(0.03)
        lifecycle.begin_drain(asyncio.get_running_loop())
        left = lifecycle.left_s
        await asyncio.wait_for(lifecycle.over.wait(), 5)
        return whole, left

    whole, left = asyncio.run(drain())
    assert whole == 0.1 and 0 <= left <= 0.07
