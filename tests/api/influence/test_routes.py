"""Influence's two routes: what they read, and what their clients get."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.asgi import Client
from api.fake_service import FakeService
from api.live_server import LiveServer
from llm_local.errors import Busy, EngineError
from llm_local.events import Delta
from llm_local.messages import Message

BODY: dict[str, Any] = {"prompt": "What is 2+2?", "max_tokens": 50, "temperature": 0.7}


def blocks(raw: bytes) -> list[tuple[str, str]]:
    """The events of a stream, their data as text."""
    found = []
    for block in raw.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            data = "\n".join(line.removeprefix("data: ") for line in lines[1:])
            found.append((lines[0].removeprefix("event: "), data))
    return found


def test_an_answer(client: Client, service: FakeService) -> None:
    answer = client.ask("POST", "/v1/generate", BODY | {"top_k": 40, "repeat_penalty": 1.1, "user": "u"})
    body = answer.json()
    assert (body["text"], body["tokens_generated"], body["finish_reason"]) == ("Hello", 2, "stop")
    assert answer.headers["x-llm-local-ignored"] == "user"
    work = service.works[0]
    assert (work.prompt, work.messages, work.clamp) == ("What is 2+2?", None, True)
    assert work.changes == {
        "max_new_tokens": 50,
        "temperature": 0.7,
        "top_k": 40,
        "repetition_penalty": 1.1,
    }
    assert service.replies[0].closed


def test_with_a_system_prompt_it_is_a_question(client: Client, service: FakeService) -> None:
    client.ask("POST", "/v1/generate", BODY | {"system": "Be brief."})
    assert service.works[0].messages == (Message("system", "Be brief."), Message("user", "What is 2+2?"))
    client.ask("POST", "/v1/generate", BODY | {"system": " "})
    assert service.works[1].prompt == "What is 2+2?"


def test_a_stream_is_pieces_of_text(client: Client, service: FakeService) -> None:
    lines = Delta("content", "a\n b", (5,))
    service.events = [Delta("reasoning", "hm", (4,)), lines, *service.events]
    answer = client.ask("POST", "/v1/generate_stream", BODY)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, (last, counts) = blocks(answer.body)
    assert pieces == [("token", "a\n b"), ("token", "Hel"), ("token", "lo")]
    assert last == "finish" and json.loads(counts)["usage"]["completion_tokens"] == 2
    assert service.replies[0].closed


def test_failures(client: Client, service: FakeService) -> None:
    for body, param in (
        ({"max_tokens": 5}, "prompt"),
        ({"prompt": ""}, "prompt"),
        (BODY | {"repeat_penalty": -1.0}, "repeat_penalty"),
        (BODY | {"top_p": 2}, "top_p"),
    ):
        for path in ("/v1/generate", "/v1/generate_stream"):
            answer = client.ask("POST", path, body)
            assert (answer.status, answer.json()["error"]["param"]) == (400, param)
    service.events = [Delta("content", "Once"), EngineError("It broke.")]
    name, data = blocks(client.ask("POST", "/v1/generate_stream", BODY).body)[-1]
    assert name == "error" and json.loads(data)["error"]["message"] == "It broke."
    service.refusal = Busy("Full.", retry_after_s=2, kind="server_busy")
    assert client.ask("POST", "/v1/generate_stream", BODY).status == 503


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_stream_is_the_whole_answer(live_server: LiveServer, system: str | None) -> None:
    body = {"prompt": "Hello!", "max_tokens": 12, "seed": 4, "temperature": 1.2, "system": system}
    status, whole = live_server.ask("POST", "/v1/generate", body)
    assert status == 200 and 1 <= whole["tokens_generated"] <= 12
    status, raw = live_server.ask("POST", "/v1/generate_stream", body)
    assert status == 200
    assert "".join(text for name, text in blocks(raw) if name == "token") == whole["text"]
