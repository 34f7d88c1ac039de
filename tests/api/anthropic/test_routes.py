"""Anthropic's routes over a service with a script: envelopes, headers, and failures before and after the first byte."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from api.asgi import Answer, Client
from api.fake_service import FakeService
from llm_local.api import streams
from llm_local.errors import (
    Busy,
    ContextLengthExceeded,
    EngineError,
    InsufficientMemory,
    InvalidRequest,
    LocalLLMError,
    ModelNotFound,
)
from llm_local.events import Delta, ToolCallEvent
from llm_local.messages import ToolCall
from llm_local.service import Rendered, Work

HELLO = [{"role": "user", "content": "Hello"}]
BODY: dict[str, Any] = {"model": "fake", "max_tokens": 9, "messages": HELLO}
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


def ask(client: Client, path: str = "/v1/messages", **fields: Any) -> Answer:
    return client.ask("POST", path, BODY | fields)


def error(answer: Answer) -> dict[str, Any]:
    body = answer.json()
    assert list(body) == ["type", "error", "request_id"] and body["type"] == "error"
    assert list(body["error"]) == ["type", "message"]
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    return dict(body["error"])


def test_an_answer(client: Client, service: FakeService) -> None:
    answer = ask(client, "/v1/messages?beta=true", metadata={"user_id": "u"})
    body = answer.json()
    assert answer.status == 200 and body["content"] == [{"type": "text", "text": "Hello"}]
    assert (body["stop_reason"], body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (
        "end_turn",
        3,
        2,
    )
    assert body["warnings"] == ["a notice"]
    assert answer.headers["x-llm-local-ignored"] == "metadata"
    assert answer.headers["x-llm-local-seed"] == "7"
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert service.replies[0].closed and service.works[0].caller.owner == "local"


def test_a_stream(client: Client, service: FakeService) -> None:
    answer = ask(client, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.events()
    assert [name for name, _ in events] == [
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert all(name == data["type"] for name, data in events)
    assert answer.body.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert b"[DONE]" not in answer.body and service.replies[0].closed


def test_a_silent_stream_has_pings_of_its_own_kind(
    client: Client, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.01)
    service.events = [0.1, *service.events]
    answer = ask(client, stream=True)
    assert [name for name, _ in answer.events()].count("ping") > 2
    assert b": ping" not in answer.body.replace(b"event: ping", b"")


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (ModelNotFound("There is no model x."), 404, "not_found_error"),
        (InvalidRequest("No.", param="top_k"), 400, "invalid_request_error"),
        (Busy("Full.", retry_after_s=2, kind="server_busy"), 529, "overloaded_error"),
        (Busy("Slow.", retry_after_s=2, kind="rate_limit_exceeded"), 429, "rate_limit_error"),
        (LocalLLMError("Late.", kind="deadline_exceeded"), 504, "timeout_error"),
        (InsufficientMemory("Too big.", need_bytes=2, have_bytes=1), 507, "api_error"),
        (EngineError("It broke."), 500, "api_error"),
        (RuntimeError("secret"), 500, "api_error"),
    ],
)  # fmt: skip
def test_failures_before_the_first_byte_have_their_status_streamed_or_not(
    client: Client, service: FakeService, failure: Exception, status: int, kind: str
) -> None:
    service.refusal = failure
    for stream in (False, True):
        answer = ask(client, stream=stream)
        assert (answer.status, error(answer)["type"]) == (status, kind)
        assert b"secret" not in answer.body
        if isinstance(failure, Busy):
            assert answer.headers["retry-after"] == "2"
        elif status >= 500:
            assert answer.headers["x-should-retry"] == "false"


def test_a_conversation_that_is_too_long_is_refused_in_anthropics_words(
    client: Client, service: FakeService
) -> None:
    service.refusal = ContextLengthExceeded(prompt_tokens=700, reserve=32, context_length=512)
    for stream in (False, True):
        answer = ask(client, stream=stream)
        assert (answer.status, error(answer)) == (
            400,
            {"type": "invalid_request_error", "message": "prompt is too long: 700 tokens > 512 maximum"},
        )
    service.refusal = ContextLengthExceeded(prompt_tokens=500, reserve=32, context_length=512)
    assert error(ask(client))["message"] == "prompt is too long: 500 tokens > 480 maximum"


def test_a_failure_after_the_first_byte_is_the_last_event(client: Client, service: FakeService) -> None:
    service.events = [Delta("content", "Once"), EngineError("It broke.")]
    name, data = ask(client, stream=True).events()[-1]
    assert (name, data["type"], data["error"]) == (
        "error",
        "error",
        {"type": "api_error", "message": "It broke."},
    )
    assert service.replies[0].closed


def test_one_call_is_enough_where_the_client_says_so(client: Client, service: FakeService) -> None:
    calls = [ToolCallEvent(ToolCall(f"call{number}", "weather", {})) for number in range(2)]
    service.events = [*calls, *service.events]
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    body = ask(client, tools=[TOOL], tool_choice=choice).json()
    assert [block["id"] for block in body["content"]] == ["toolu_call0"]
    assert body["stop_reason"] == "tool_use"


class Switchless(FakeService):
    """A model whose reasoning cannot be switched; `thinking` is what its files tell of it."""

    thinking = ""

    async def begin(self, work: Work) -> Any:
        if "think" in work.changes:
            raise InvalidRequest("No such switch.", param="think")
        return await super().begin(work)

    async def show(self, model: str | None) -> Any:
        return SimpleNamespace(card=SimpleNamespace(capabilities=SimpleNamespace(thinking=self.thinking)))


ENABLED = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
DISABLED = {"thinking": {"type": "disabled"}}


def test_a_model_without_a_switch_for_reasoning_answers_and_tells(make: Any) -> None:
    service = Switchless()
    client = make(service)
    for fields, ignored in (
        (ENABLED, "thinking"),
        (DISABLED, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "output_config.effort"),
        (ENABLED | {"output_config": {"effort": "low"}}, "output_config.effort, thinking"),
    ):
        answer = ask(client, **fields)
        assert (answer.status, answer.headers.get("x-llm-local-ignored")) == (200, ignored)
    service.thinking = "always or by itself"
    assert "x-llm-local-ignored" not in ask(client, **ENABLED).headers
    assert ask(client, **DISABLED).status == 400


def test_tokens_are_counted_as_the_model_would_read_them(client: Client, service: FakeService) -> None:
    body = {name: value for name, value in BODY.items() if name != "max_tokens"}
    answer = client.ask(
        "POST", "/v1/messages/count_tokens?beta=true", body | {"system": "x", "tools": [TOOL]}
    )
    assert (answer.status, answer.json()) == (200, {"input_tokens": 2})
    assert [message.role for message in service.works[0].messages or ()] == ["system", "user"]
    assert service.works[0].tools


def test_also_those_that_are_too_many(
    client: Client, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(work: Work) -> Rendered:
        raise ContextLengthExceeded(prompt_tokens=700, reserve=32, context_length=512)

    monkeypatch.setattr(service, "render", refuse)
    answer = ask(client, "/v1/messages/count_tokens")
    assert (answer.status, answer.json()) == (200, {"input_tokens": 700})


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("GET", "/v1/messages/batches", 404, "not_found_error"),
    ],
)
def test_wrong_paths_and_methods_have_the_envelope_too(
    client: Client, method: str, path: str, status: int, kind: str
) -> None:
    answer = client.ask(method, path)
    assert (answer.status, error(answer)["type"]) == (status, kind)


def test_the_neighbors_keep_openais_envelope(client: Client) -> None:
    for path in ("/v1/messagesx", "/v1/nothing", "/v1/generate"):
        assert "code" in client.ask("POST", path, {}).json()["error"]


def test_keys_come_in_either_header(make: Any) -> None:
    client = make(keys="admin:a-long-enough-secret-key")
    answer = ask(client)
    assert (answer.status, error(answer)["type"]) == (401, "authentication_error")
    for headers in (
        {"x-api-key": "a-long-enough-secret-key"},
        {"authorization": "bearer a-long-enough-secret-key"},
    ):
        assert client.ask("POST", "/v1/messages", BODY, headers).status == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff"])
def test_what_is_no_json_object_is_a_400(client: Client, body: bytes) -> None:
    answer = client.ask("POST", "/v1/messages", body)
    assert (answer.status, error(answer)["type"]) == (400, "invalid_request_error")


def test_a_body_may_be_too_large(client: Client) -> None:
    answer = client.ask("POST", "/v1/messages", b"{}", {"content-length": str(1 << 30)})
    assert (answer.status, error(answer)["type"]) == (413, "request_too_large")


def test_the_examples_are_what_the_routes_take(client: Client) -> None:
    document = client.ask("GET", "/openapi.json").json()
    found = [
        (path, methods["post"]) for path, methods in document["paths"].items()
        if {"Anthropic", "Influence"} & set(methods.get("post", {}).get("tags", ()))
    ]  # fmt: skip
    assert len(found) == 4
    for path, operation in found:
        assert "`curl " in operation["description"] and path in operation["description"]
        for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
            assert client.ask("POST", path, example["value"]).status == 200
