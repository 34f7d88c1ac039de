"""OpenAI's routes over a service with a script: envelopes, headers, and failures before and after the first byte."""

from __future__ import annotations

from typing import Any

import pytest

from api.asgi import Answer, Client
from api.fake_service import FakeService
from llm_local.api.errors import json_text
from llm_local.errors import (
    Busy,
    ContextLengthExceeded,
    EngineError,
    InsufficientMemory,
    InvalidRequest,
    LocalLLMError,
    ModelNotFound,
)
from llm_local.events import ContextTrimmed, Delta

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "fake", "messages": HELLO}
RESPONSES = {"model": "fake", "input": "Hello"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/completions": {"model": "fake", "prompt": "x"},
}


def chat(client: Client, **fields: Any) -> Answer:
    return client.ask("POST", "/v1/chat/completions", CHAT | fields)


def error(answer: Answer) -> dict[str, Any]:
    body = answer.json()
    assert list(body) == ["error", "request_id"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return dict(body["error"])


def test_an_answer(client: Client, service: FakeService) -> None:
    answer = chat(client, user="u", metadata={})
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert answer.json()["usage"]["total_tokens"] == 5
    assert answer.headers["x-llm-local-ignored"] == "user, metadata"
    assert answer.headers["x-llm-local-seed"] == "7"
    assert service.replies[0].closed
    assert service.works[0].clamp and service.works[0].caller.owner == "local"


def test_many_numbers_are_written_as_few_are(client: Client) -> None:
    asked = {"model": "fake", "input": ["one", "two"]}
    answer = client.ask("POST", "/v1/embeddings", asked)
    assert answer.body == json_text(answer.json()).encode()
    assert [one["embedding"] for one in answer.json()["data"]] == [[1.0, 0.0], [1.0, 0.0]]


def test_a_choice_that_is_very_long_is_refused_before_it_costs_anything(client: Client) -> None:
    asked = {"model": "fake", "prompt": "a", "choices": ["b", "x" * 8193]}
    assert error(client.ask("POST", "/v1/decisions", asked))["param"] == "choices[1]"


def test_a_stream(client: Client, service: FakeService) -> None:
    answer = chat(client, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache" and answer.headers["x-accel-buffering"] == "no"
    blocks = answer.body.decode().split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    assert all(block.startswith('data: {"id":"chatcmpl-') for block in blocks[:-2])
    assert all("\n" not in block for block in blocks)
    assert '"choices":[]' not in answer.body.decode() and '"usage"' not in answer.body.decode()
    assert service.replies[0].closed


def test_without_a_cap_of_the_settings_or_the_request_the_window_is_the_cap(
    client: Client, make: Any
) -> None:
    service = FakeService(max_new_tokens=9)
    chat(make(service))
    assert "max_new_tokens" not in service.works[0].changes


@pytest.mark.parametrize(
    ("failure", "status", "kind", "code"),
    [
        (ModelNotFound("There is no model x."), 404, "invalid_request_error", "model_not_found"),
        (InvalidRequest("No.", param="top_k"), 400, "invalid_request_error", "invalid_value"),
        (Busy("Full.", retry_after_s=2, kind="server_busy"), 503, "server_error", "server_busy"),
        (Busy("Slow.", retry_after_s=2, kind="rate_limit_exceeded"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (InsufficientMemory("Too big.", need_bytes=2, have_bytes=1), 507, "server_error", "insufficient_memory"),
        (EngineError("It broke."), 500, "server_error", "engine_error"),
        (RuntimeError("secret"), 500, "server_error", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", BODIES)
def test_failures_before_the_first_byte_have_their_status_streamed_or_not(
    client: Client, service: FakeService, path: str, failure: Exception, status: int, kind: str, code: str | None
) -> None:  # fmt: skip
    service.refusal = failure
    for stream in (False, True):
        answer = client.ask(
            "POST",
            path,
            BODIES[path] | {"stream": stream},
        )
        assert answer.status == status
        told = error(answer)
        assert (told["type"], told["code"]) == (kind, code)
        assert "secret" not in told["message"]
        if isinstance(failure, Busy):
            assert answer.headers["retry-after"] == "2"
        elif status >= 500:
            assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("path", "body", "param", "noun"),
    [
        ("/v1/chat/completions", CHAT, "messages", "messages"),
        ("/v1/chat/completions", CHAT | {"stream": True}, "messages", "messages"),
        ("/v1/completions", {"model": "m", "prompt": "x"}, "prompt", "prompt"),
        ("/v1/responses", RESPONSES, "input", "messages"),
    ],
)
def test_a_conversation_that_is_too_long_is_refused_in_openais_words(
    client: Client, service: FakeService, path: str, body: dict[str, Any], param: str, noun: str
) -> None:
    service.refusal = ContextLengthExceeded(prompt_tokens=700, reserve=32, context_length=512)
    answer = client.ask("POST", path, body)
    assert answer.status == 400
    told = error(answer)
    assert (told["code"], told["param"]) == ("context_length_exceeded", param)
    assert told["message"].startswith(
        f"This model's maximum context length is 512 tokens. However, your {noun} resulted in 700 tokens."
    )
    service.refusal = ContextLengthExceeded(prompt_tokens=500, reserve=32, context_length=512)
    assert "500 tokens, and 32 are needed for the reply." in error(client.ask("POST", path, body))["message"]


@pytest.mark.parametrize(
    ("name", "chat_name", "responses_name"),
    [
        ("think", "reasoning_effort", "reasoning.effort"),
        ("constraint", "response_format", "text.format"),
        ("max_new_tokens", "max_tokens", "max_output_tokens"),
        ("messages", "messages", "input"),
        ("seed", "seed", "seed"),
    ],
)
def test_what_only_the_model_can_refuse_has_openais_name(
    client: Client, service: FakeService, name: str, chat_name: str, responses_name: str
) -> None:
    for path, body, expected in (
        ("/v1/chat/completions", CHAT, chat_name),
        ("/v1/responses", RESPONSES, responses_name),
    ):
        service.refusal = InvalidRequest("No.", param=name)
        assert error(client.ask("POST", path, body))["param"] == expected


def test_a_failure_after_the_first_byte_is_the_last_chunk(client: Client, service: FakeService) -> None:
    service.events = [Delta("content", "Once"), EngineError("It broke.")]
    body = chat(client, stream=True).body.decode()
    *_, last = [block for block in body.split("\n\n") if block]
    assert last.startswith('data: {"error":{"message":"It broke."')
    assert '"type":"server_error"' in last and "[DONE]" not in last
    assert service.replies[0].closed


def test_a_response_that_fails_says_so_in_an_event(client: Client, service: FakeService) -> None:
    service.events = [Delta("content", "Once"), LocalLLMError("It broke.")]
    events = client.ask("POST", "/v1/responses", RESPONSES | {"stream": True}).events()
    assert events[-1][0] == "response.failed"
    assert events[-1][1]["response"]["error"] == {"code": "server_error", "message": "It broke."}
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))


def test_what_was_left_out_where_the_client_asked_for_that(client: Client, service: FakeService) -> None:
    service.trimmed = ContextTrimmed(2, 40)
    answer = client.ask("POST", "/v1/responses", RESPONSES | {"truncation": "auto", "store": True})
    assert answer.headers["x-llm-local-context-trimmed"] == "messages=2, tokens=40"
    assert answer.headers["x-llm-local-ignored"] == "store"
    assert service.works[0].policy == "trim-oldest"


def test_many_prompts_are_begun_a_few_at_a_time(client: Client, service: FakeService) -> None:
    service.events = [0.01, *service.events]
    body = {"model": "fake", "prompt": [f"{number}" for number in range(40)]}
    answer = client.ask("POST", "/v1/completions", body).json()
    assert [choice["index"] for choice in answer["choices"]] == list(range(40))
    assert [work.prompt for work in service.works[:16]] == body["prompt"][:16]
    assert answer["usage"]["prompt_tokens"] == 40 * 3 and answer["usage"]["completion_tokens"] == 40 * 2
    assert len(service.replies) == 40 and all(reply.closed for reply in service.replies)


def test_what_people_should_know_is_in_the_answer_once(client: Client, service: FakeService) -> None:
    assert chat(client).json()["warnings"] == ["a notice"]
    streamed = chat(client, stream=True).body.decode()
    assert streamed.count("a notice") == 1 and '"warnings"' in streamed.split("\n\n")[0]
    for path in ("/v1/responses", "/v1/completions"):
        assert client.ask("POST", path, BODIES[path]).json()["warnings"] == ["a notice"]


def test_models_have_a_price_and_a_window(client: Client) -> None:
    [card] = client.ask("GET", "/v1/models").json()["data"]
    assert card == {
        "id": "fake", "object": "model", "created": 1, "owned_by": "library",
        "pricing": {"prompt": "0", "completion": "0"}, "capabilities": ["chat", "completion"],
        "context_length": 512, "max_model_len": 512, "meta": {"n_ctx": 512},
    }  # fmt: skip
    assert client.ask("GET", "/v1/models/fake:latest").json() == card
    assert error(client.ask("GET", "/v1/models/a/b:c"))["code"] == "model_not_found"


def test_embeddings_of_texts_and_of_token_ids(client: Client, service: FakeService) -> None:
    body = {"model": "fake", "input": ["a", "b"], "dimensions": 2}
    answer = client.ask("POST", "/v1/embeddings", body).json()
    assert [one["index"] for one in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    answer = client.ask(
        "POST", "/v1/embeddings", body | {"input": [[1, 2], [3]], "encoding_format": "base64"}
    ).json()
    assert answer["data"][0]["embedding"] == "AACAPwAAAAA="
    assert [call[2] for call in service.calls] == [("a", "b"), ((1, 2), (3,))]


@pytest.mark.parametrize("given", [[], "", ["a", ""], [[]], None, {"a": 1}, [1.5], [["a"]], [True], 5])
def test_what_is_no_input_is_refused(client: Client, given: Any) -> None:
    answer = client.ask("POST", "/v1/embeddings", {"model": "fake", "input": given})
    assert answer.status == 400
    assert error(answer)["param"].startswith("input")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/v1/nothing", 404, "unknown_url"), ("GET", "/v1/chat/completions", 405, "method_not_allowed")],
)
def test_wrong_paths_and_methods_have_the_envelope_too(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    answer = client.ask(method, path)
    assert (answer.status, error(answer)["code"]) == (status, code)


def test_a_wrong_key_is_openais_401(make: Any) -> None:
    client = make(keys="admin:a-long-enough-secret-key")
    answer = client.ask("POST", "/v1/chat/completions", CHAT)
    assert (answer.status, error(answer)["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff", b'"x"'])
def test_what_is_no_json_object_is_a_400(client: Client, body: bytes) -> None:
    answer = client.ask("POST", "/v1/chat/completions", body)
    assert (answer.status, error(answer)["type"]) == (400, "invalid_request_error")
