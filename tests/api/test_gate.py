"""The gate of a full server: who asks for a reply is refused before anything of the request is read."""

from __future__ import annotations

import pytest

from api.asgi import Client
from api.conftest import Make
from api.fake_service import FakeService
from llm_local.api.gate import GUARDED
from llm_local.api.observe import ACCESS_LOG
from llm_local.errors import Busy

KEYS = "admin:admin-key-0123456789,user:user-key-0123456789"
# What takes no place in the line of a model that writes, or has a bound of its own.
OTHERS = {
    "/api/copy", "/api/embed", "/api/embeddings", "/api/pull", "/api/show",
    "/api/v1/chat/new", "/api/v1/chat/switch-model", "/api/v1/load-model",
    "/apply-template", "/detokenize", "/embeddings", "/models/load", "/models/unload", "/queue/{request_id}/cancel",
    "/rerank", "/tokenize", "/v1/embeddings", "/v1/messages/count_tokens",
}  # fmt: skip


@pytest.fixture
def full(service: FakeService) -> FakeService:
    service.full = Busy("The server is busy.", "Try again later.", retry_after_s=7.2, kind="server_busy")
    return service


def test_every_post_is_guarded_or_known_to_need_no_place(client: Client) -> None:
    posted = {path for path, ways in client.app.openapi()["paths"].items() if "post" in ways}
    assert posted == GUARDED | OTHERS


@pytest.mark.parametrize("path", sorted(GUARDED))
def test_a_full_server_refuses_without_reading(client: Client, full: FakeService, path: str) -> None:
    answer = client.ask("POST", path, b"x" * 100_000)
    status = 529 if path == "/v1/messages" else 503  # what Anthropic calls it
    assert (answer.status, answer.headers["retry-after"], client.read) == (status, "8", 0)
    assert "The server is busy." in str(answer.json()["error"]) and answer.json()["request_id"]


def test_a_full_server_does_everything_else(client: Client, full: FakeService) -> None:
    assert client.ask("GET", "/models").status == 200
    assert client.ask("POST", "/tokenize", {"text": "Hi"}).status == 200
    assert full.calls == []


def test_who_has_no_key_does_not_learn_how_busy_it_is(make: Make, full: FakeService) -> None:
    client = make(full, KEYS)
    assert client.ask("POST", "/chat", b"x").status == 401
    full.full = None
    assert client.ask("POST", "/chat", b"x").status == 401
    assert client.read == 0 and full.calls == []


def test_a_refusal_counts_against_the_limit_and_one_that_is_let_in_counts_once(make: Make) -> None:
    service = FakeService(rate_limit="3/hour")
    client = make(service)
    hello = {"messages": [{"role": "user", "content": "Hi"}]}
    assert client.ask("POST", "/chat", hello).headers["x-ratelimit-remaining-requests"] == "2"
    service.full = Busy("Full.", kind="server_busy")
    assert client.ask("POST", "/chat", hello).headers["x-ratelimit-remaining-requests"] == "1"
    assert client.ask("POST", "/chat", hello).headers["x-ratelimit-remaining-requests"] == "0"
    assert client.ask("POST", "/chat", hello).status == 429


def test_the_log_and_the_metrics_know_the_route(
    client: Client, full: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", ACCESS_LOG)
    client.ask("POST", "/v1/chat/completions", b"x")
    assert caplog.records[-1].__dict__["route"] == "/v1/chat/completions"
    assert full.http == [("POST", "/v1/chat/completions", 503)]


def test_a_key_of_a_retry_that_nothing_knows_is_said_to_be_ignored(client: Client) -> None:
    key = {"idempotency-key": "k"}
    hello = {"messages": [{"role": "user", "content": "Hi"}]}
    assert client.ask("POST", "/chat", hello, key).headers["x-llm-local-ignored"] == "Idempotency-Key"
    unknown = {**hello, "model": "fake", "fancy": 1}
    plain = client.ask("POST", "/v1/chat/completions", unknown).headers["x-llm-local-ignored"]
    both = client.ask("POST", "/v1/chat/completions", unknown, key).headers["x-llm-local-ignored"]
    assert both == f"{plain}, Idempotency-Key"
    assert "x-llm-local-ignored" not in client.ask("GET", "/models", headers=key).headers
