"""`/api/v1`: conversations that are kept, one message at a time, each its owner's alone."""

from __future__ import annotations

import asyncio
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from api.asgi import Client
from api.conftest import Make
from api.fake_service import EVENTS, FakeService
from llm_local.errors import Busy, EngineError, ModelNotFound, StorageError
from llm_local.events import ContextTrimmed, Delta, Progress
from llm_local.service import Work

CHAT = "/api/v1/chat"


class LegacyService(FakeService):
    """Knows two models by name."""

    async def show(self, model: str | None) -> SimpleNamespace:
        known = (await self.models())[0]
        if model not in (None, "fake", "other"):
            raise ModelNotFound(f"There is no model {model}.")
        return SimpleNamespace(known=known if model in (None, "fake") else _renamed(known, model))


def _renamed(known: Any, name: str) -> Any:

    return dataclasses.replace(known, name=name, loaded=None)


@pytest.fixture
def service() -> LegacyService:
    return LegacyService()


def said(work: Work) -> list[tuple[str, str]]:
    return [(one.role, one.content) for one in work.messages or ()]


def test_a_message_begins_a_conversation_that_goes_on(client: Client, service: LegacyService) -> None:
    body = {"message": "Hi", "system_prompt": "Be brief.", "max_tokens": 9, "temperature": 0.5}
    first = client.ask("POST", CHAT, body)
    answer = first.json()
    assert (first.status, answer["response"], answer["finish_reason"]) == (200, "Hello", "stop")
    assert answer["usage"]["total_tokens"] == 5
    assert answer["persisted"] is True
    assert answer["speed"].endswith(".")
    assert service.works[0].changes == {"max_new_tokens": 9, "temperature": 0.5}
    assert (service.works[0].policy, service.works[0].model) == ("trim-oldest", None)
    again = client.ask("POST", CHAT, {"message": "More", "conversation_id": answer["conversation_id"]})
    assert again.json()["conversation_id"] == answer["conversation_id"]
    assert said(service.works[1]) == [
        ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "More"),
    ]  # fmt: skip
    shown = client.ask("GET", f"{CHAT}/conversation/{answer['conversation_id']}").json()
    assert [one["content"] for one in shown["messages"]] == ["Be brief.", "Hi", "Hello", "More", "Hello"]
    assert {one["status"] for one in shown["messages"]} == {"complete"}
    assert (shown["num_messages"], shown["model"]) == (5, "fake")
    assert shown["created"].endswith("+00:00")


def test_the_stream_says_the_same_as_the_whole_answer(client: Client, service: LegacyService) -> None:
    whole = client.ask("POST", CHAT, {"message": "Hi"}).json()
    service.events = (Progress("queued", 1, 3), Delta("reasoning", "hm", (9,)), *EVENTS)
    chunks = [data for _, data in client.ask("POST", CHAT, {"message": "Hi", "stream": True}).events()]
    assert chunks[0]["conversation_id"] not in (None, whole["conversation_id"])
    assert chunks[1:5] == [
        {"position": 1, "waiting": 3}, {"reasoning_delta": "hm"}, {"delta": "Hel"}, {"delta": "lo"},
    ]  # fmt: skip
    assert (chunks[-1]["done"], chunks[-1]["response"]) == (True, whole["response"])
    assert chunks[-1]["usage"] == whole["usage"]
    shown = client.ask("GET", f"{CHAT}/conversation/{chunks[0]['conversation_id']}").json()
    assert shown["messages"][-1]["reasoning"] == "hm"


def test_a_stream_that_fails_ends_in_an_error_and_keeps_what_there_was(client, service) -> None:
    service.events = (Delta("content", "part", (1,)), EngineError("It broke."))
    chunks = [data for _, data in client.ask("POST", CHAT, {"message": "Hi", "stream": True}).events()]
    assert chunks[-1]["error"]["kind"] == "engine_error"
    shown = client.ask("GET", f"{CHAT}/conversation/{chunks[0]['conversation_id']}").json()
    assert [(one["content"], one["status"]) for one in shown["messages"]] == [
        ("Hi", "complete"),
        ("part", "interrupted"),
    ]


def test_who_leaves_is_noticed_and_the_part_is_kept(client, service) -> None:
    service.events = (Delta("content", "part", (1,)), None)

    async def play() -> Any:
        asking = asyncio.create_task(client.call("POST", CHAT, {"message": "Hi"}))
        await asyncio.sleep(0.2)
        client.gone.set()
        await asyncio.wait({asking}, timeout=5)
        assert service.replies[0].closed
        return await client.app.state.conversations.do(
            lambda store: store.messages("local", store.list("local")[0].id)
        )

    assert [(one.message.content, one.status) for one in client.run(play())] == [
        ("Hi", "complete"),
        ("part", "interrupted"),
    ]


def test_a_refused_message_leaves_no_conversation(client: Client, service: LegacyService) -> None:
    service.refusal = Busy("Full.", retry_after_s=3.0, kind="server_busy")
    answer = client.ask("POST", CHAT, {"message": "Hi"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    found = client.run(client.app.state.conversations.do(lambda store: store.list("local")))
    assert found == ()


def test_a_disk_that_refuses_costs_no_answer(client: Client, service: LegacyService, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr("llm_local.conversations.store.ConversationStore.create", full)
    answer = client.ask("POST", CHAT, {"message": "Hi"})
    assert (answer.status, answer.json()["response"]) == (200, "Hello")
    assert (answer.json()["persisted"], answer.headers["x-persisted"]) == (False, "false")


def test_a_conversation_can_be_made_before_anything_is_said(client: Client, service: LegacyService) -> None:
    made = client.ask("POST", f"{CHAT}/new", {"system_prompt": "Rhyme.", "title": "Poems", "model": "other"})
    found = made.json()
    assert (made.status, found["title"], found["model"]) == (201, "Poems", "other")
    assert made.headers["location"] == f"{CHAT}/conversation/{found['conversation_id']}"
    client.ask("POST", CHAT, {"message": "Hi", "conversation_id": found["conversation_id"]})
    assert said(service.works[0]) == [("system", "Rhyme."), ("user", "Hi")]
    assert service.works[0].model == "other"
    assert client.ask("POST", f"{CHAT}/new", {}).status == 201
    assert client.ask("POST", f"{CHAT}/new").status == 201
    assert client.ask("POST", f"{CHAT}/new", {"model": "none"}).status == 404


def test_switching_the_model(client: Client, service: LegacyService) -> None:
    kept = client.ask("POST", CHAT, {"message": "Hi"}).json()["conversation_id"]
    into = {"model": "other", "conversation_id": kept}
    assert client.ask("POST", f"{CHAT}/switch-model", into).json() == {**into, "loaded": False}
    client.ask("POST", CHAT, {"message": "Hi", "conversation_id": kept})
    client.ask("POST", CHAT, {"message": "Hi"})
    assert [one.model for one in service.works[1:]] == ["other", None]
    client.ask("POST", f"{CHAT}/switch-model", {"model": "other"})
    client.ask("POST", CHAT, {"message": "Hi"})
    client.ask("POST", "/api/v1/generate", {"prompt": "x"})
    client.ask("POST", CHAT, {"message": "Hi", "model": "fake"})
    assert [one.model for one in service.works[3:]] == ["other", "other", None]
    shown = client.ask("GET", f"{CHAT}/models").json()
    assert (shown["current_model"], shown["models"][0]["name"]) == ("other", "fake")
    assert client.ask("POST", f"{CHAT}/switch-model", {"model": "none"}).status == 404


def test_a_text_is_continued_and_not_kept(client: Client, service: LegacyService) -> None:
    answer = client.ask("POST", "/api/v1/generate", {"prompt": "Once", "max_tokens": 3})
    assert answer.json()["generated_text"] == "Hello"
    assert "conversation_id" not in answer.json()
    assert service.works[0].prompt == "Once"
    chunks = client.ask("POST", "/api/v1/generate", {"prompt": "Once", "stream": True}).events()
    assert (chunks[-1][1]["done"], chunks[-1][1]["response"]) == (True, "Hello")


def test_what_there_is_to_know_of_server_and_model(client: Client, service: LegacyService) -> None:
    assert client.ask("GET", "/api/v1/health").json() == {
        "status": "healthy", "reason": "", "model": "fake", "model_loaded": True,
    }  # fmt: skip
    info = client.ask("GET", "/api/v1/model-info").json()
    assert (info["name"], info["current"], info["in_memory"]["device"]) == ("fake", True, "cpu")
    assert client.ask("GET", "/api/v1/model-info?model=other").json()["in_memory"] is None
    loaded = client.ask("POST", "/api/v1/load-model", {"model": "fake", "keep_alive_s": -1}).json()
    assert (loaded["model"], loaded["loaded"]) == ("fake", True)
    assert service.calls[-1] == ("load", "fake", -1.0)
    for path in ("/api/v1/model-info", "/api/v1/load-model"):
        assert b"/secret" not in client.ask("GET", path).body


def test_what_was_trimmed_is_told(client: Client, service: LegacyService) -> None:
    service.trimmed = ContextTrimmed(4, 200)
    answer = client.ask("POST", CHAT, {"message": "Hi"})
    assert answer.json()["trimmed"] == {"num_messages": 4, "num_tokens": 200}
    assert answer.headers["x-llm-local-context-trimmed"] == "messages=4, tokens=200"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {}, "message"),
        (CHAT, {"message": ""}, "message"),
        (CHAT, {"message": "x", "max_tokens": 1, "max_new_tokens": 2}, "max_tokens"),
        (CHAT, {"message": "x", "colour": 1}, "colour"),
        (CHAT, {"message": "x", "stream": "yes"}, "stream"),
        ("/api/v1/generate", {"prompt": 3}, "prompt"),
        (f"{CHAT}/switch-model", {}, "model"),
        (f"{CHAT}/new", {"title": 7}, "title"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client: Client, service: LegacyService, path, body, param) -> None:
    answer = client.ask("POST", path, body)
    assert (answer.status, answer.json()["error"]["param"]) == (400, param)
    assert service.works == []


def test_a_conversation_has_one_system_prompt(client: Client, service: LegacyService) -> None:
    kept = client.ask("POST", CHAT, {"message": "Hi"}).json()["conversation_id"]
    body = {"message": "x", "system_prompt": "New.", "conversation_id": kept}
    answer = client.ask("POST", CHAT, body)
    assert (answer.status, answer.json()["error"]["param"]) == (400, "system_prompt")


def test_deleting_is_for_good(client: Client, service: LegacyService) -> None:
    kept = client.ask("POST", CHAT, {"message": "Hi"}).json()["conversation_id"]
    path = f"{CHAT}/conversation/{kept}"
    assert client.ask("DELETE", path).json() == {"conversation_id": kept, "deleted": True}
    for method in ("GET", "DELETE"):
        answer = client.ask(method, path)
        assert (answer.status, answer.json()["error"]["kind"]) == (404, "conversation_not_found")
    assert client.ask("POST", CHAT, {"message": "x", "conversation_id": kept}).status == 404


def test_another_owner_sees_what_a_random_id_shows_byte_for_byte(make: Make) -> None:
    client = make(LegacyService(), keys="user:alicealicealice1,user:bobbobbobbobbob12")
    alice = {"authorization": "Bearer alicealicealice1"}
    bob = {"authorization": "Bearer bobbobbobbobbob12"}
    kept = client.ask("POST", CHAT, {"message": "Hi"}, alice).json()["conversation_id"]

    def told(method: str, path: str, body: Any = b"") -> tuple[int, bytes, dict[str, str]]:
        answer = client.ask(method, path, body, bob)
        request_id = answer.headers.pop("x-request-id").encode()
        headers = {name: value for name, value in answer.headers.items() if "ratelimit" not in name}
        return (
            answer.status,
            answer.body.replace(request_id, b"ID").replace(kept.encode(), b"0" * 32),
            headers,
        )

    for conversation_id in (kept, kept[:8]):
        other = "0" * len(conversation_id)
        asks = [
            ("GET", f"{CHAT}/conversation/{{}}", None),
            ("DELETE", f"{CHAT}/conversation/{{}}", None),
            ("POST", CHAT, {"message": "x"}),
            ("POST", f"{CHAT}/switch-model", {"model": "fake"}),
        ]
        for method, path, body in asks:
            ours = b"" if body is None else {**body, "conversation_id": conversation_id}
            random = b"" if body is None else {**body, "conversation_id": other}
            theirs = told(method, path.format(conversation_id), ours)
            if len(conversation_id) < 32:
                theirs = (theirs[0], theirs[1].replace(conversation_id.encode(), other.encode()), theirs[2])
            assert theirs == told(method, path.format(other), random)
            assert theirs[0] == 404
    assert client.ask("GET", f"{CHAT}/conversation/{kept}", headers=alice).status == 200
    loading = client.ask("POST", "/api/v1/load-model", {"model": "fake"}, bob)
    assert loading.status == 403


def test_every_route_needs_a_key_where_there_are_keys(make: Make) -> None:
    client = make(LegacyService(), keys="user:alicealicealice1")
    for method, path in (
        ("POST", CHAT),
        ("POST", f"{CHAT}/new"),
        ("GET", f"{CHAT}/models"),
        ("POST", f"{CHAT}/switch-model"),
        ("GET", f"{CHAT}/conversation/00"),
        ("DELETE", f"{CHAT}/conversation/00"),
        ("POST", "/api/v1/generate"),
        ("GET", "/api/v1/health"),
        ("GET", "/api/v1/model-info"),
        ("POST", "/api/v1/load-model"),
    ):
        assert client.ask(method, path).status == 401
