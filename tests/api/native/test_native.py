"""The native dialect through the application: every route, every field, every way to fail."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from api.asgi import Client
from api.conftest import Make
from api.fake_service import INFO, TIMINGS, USAGE, FakeService
from llm_local.api.native.translate import real_name
from llm_local.conversations.store import ConversationStore
from llm_local.errors import (
    Busy,
    ContextLengthExceeded,
    EngineError,
    HubUnavailable,
    InsufficientMemory,
    LocalLLMError,
    ModelCorrupt,
    ModelNotFound,
    NumericalError,
    StorageError,
    UnsupportedTask,
)
from llm_local.events import (
    ContextTrimmed,
    Delta,
    Finish,
    Progress,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
)
from llm_local.messages import Message, ToolCall
from llm_local.options import Constraint
from llm_local.service import Readiness

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
END = Finish("stop", USAGE, TIMINGS)


def refusal(client: Client, path: str, body: object) -> tuple[int, str, str | None]:
    answer = client.ask("POST", path, body)
    error = answer.json()["error"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return answer.status, error["kind"], error["param"]


def test_an_answer_says_all_that_is_known(client: Client, service: FakeService) -> None:
    service.trimmed = ContextTrimmed(2, 30)
    logprob = TokenLogprob(5, -0.5, ((5, -0.5), (6, -1.0)))
    call = ToolCall("c1", "f", {"x": 1})
    service.events = (
        service.trimmed, Progress("prefill", 1, 2), Delta("reasoning", "Hm."), Delta("content", "Hi", (5,), (logprob,)),
        ToolCallEvent(call), END,
    )  # fmt: skip
    answer = client.ask("POST", "/chat", HELLO)
    found = answer.json()
    assert (found["text"], found["reasoning"], found["finish_reason"]) == ("Hi", "Hm.", "stop")
    assert found["tool_calls"] == [{"id": "c1", "name": "f", "arguments": {"x": 1}}]
    assert found["logprobs"] == [{"token_id": 5, "logprob": -0.5, "top": [[5, -0.5], [6, -1.0]]}]
    assert found["usage"]["total_tokens"] == 5 and found["usage"]["cached_tokens"] == 1
    assert {"queued_s", "load_s", "prefill_s", "decode_s", "total_s", "first_token_s"} <= found[
        "timings"
    ].keys()
    assert found["speed"].endswith(".") and found["seed"] == 7 and found["notices"] == ["a notice"]
    assert found["trimmed"] == {"num_messages": 2, "num_tokens": 30}
    assert answer.headers["x-llm-local-context-trimmed"] == "messages=2, tokens=30"
    assert found["model"] == found["answered_by"] == "fake"
    assert found["id"] == service.replies[0].id and service.replies[0].closed


@pytest.mark.parametrize(
    ("ref", "told"),
    [("starter", "starter"), ("/home/me/model", "wanted"), ("./model", "wanted"), ("C:\\m", "wanted")],
)
def test_who_really_answers_is_told_and_no_path(ref: str, told: str) -> None:
    assert real_name("wanted", dataclasses.replace(INFO, ref=ref)) == told


def test_every_field_reaches_the_service_under_its_own_name(client: Client, service: FakeService) -> None:
    options = {
        "max_new_tokens": 5, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.8,
        "repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": -0.2, "seed": 4, "logprobs": True,
        "top_logprobs": 2, "max_thinking_tokens": 9,
    }  # fmt: skip
    special = {
        "logit_bias": {"3": -5},
        "stop": ["a", "b"],
        "think": "low",
        "constraint": {"kind": "choice", "value": ["x", "y"]},
    }
    tool = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    chat = {
        "model": "m", "keep_alive_s": -1, "deadline_s": 5, "priority": 3, "tools": [tool], "tool_choice": "f",
        "context_policy": "trim-oldest", "default_system": False, "messages": [
            {"role": "system", "content": "Be."}, {"role": "assistant", "content": "", "reasoning": "r", "tool_calls": [
                {"id": "1", "name": "f", "arguments": {"a": [1]}}]},
            {"role": "tool", "content": "2", "tool_call_id": "1", "name": "f"},
        ],
    }  # fmt: skip
    assert client.ask("POST", "/chat", {**chat, **options, **special}).status == 200
    work = service.works[0]
    assert work.changes == {
        **options, "logit_bias": {3: -5.0}, "stop": ("a", "b"), "think": "low", "tool_choice": "f",
        "constraint": Constraint("choice", ("x", "y")),
    }  # fmt: skip
    assert (work.model, work.keep_alive_s, work.deadline_s, work.priority) == ("m", -1, 5, 3)
    assert (work.policy, work.default_system, work.tools[0].strict) == ("trim-oldest", False, True)
    assert work.messages == (
        Message("system", "Be."),
        Message("assistant", "", reasoning="r", tool_calls=(ToolCall("1", "f", {"a": [1]}),)),
        Message("tool", "2", "f", tool_call_id="1"),
    )
    assert client.ask("POST", "/generate", {"prompt_ids": [1, 2], "think": True, "stop": "."}).status == 200
    assert (service.works[1].prompt_ids, service.works[1].changes) == (
        (1, 2),
        {"think": "on", "stop": (".",)},
    )


def test_null_is_not_given(client: Client, service: FakeService) -> None:
    body = {"prompt": "x", "seed": None, "temperature": None, "stop": None, "constraint": None, "model": None}
    assert client.ask("POST", "/generate", body).status == 200
    assert service.works[0].changes == {} and service.works[0].model is None


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/generate", {}, "prompt"),
        ("/generate", {"prompt": "x", "prompt_ids": [1]}, "prompt"),
        ("/generate", {"prompt": 5}, "prompt"),
        ("/generate", {"prompt_ids": []}, "prompt_ids"),
        ("/generate", {"prompt": "x", "max_tokens": 5}, "max_tokens"),
        ("/generate", {"prompt": "x", "stream": True}, "stream"),
        (
            "/generate",
            {"prompt": "x", "constraint": {"kind": "regex", "value": "a", "flags": 1}},
            "constraint.flags",
        ),
        ("/generate", {"prompt": "x", "constraint": {"kind": "magic"}}, "constraint.kind"),
        ("/generate", {"prompt": "x", "constraint": {"kind": "regex"}}, "constraint"),
        ("/generate", {"prompt": "x", "logit_bias": {"a": 1}}, "logit_bias"),
        ("/generate", {"prompt": "x", "think": "maybe"}, "think"),
        ("/generate", {"prompt": "x", "priority": 101}, "priority"),
        ("/generate", {"prompt": "x", "keep_alive_s": 1e9}, "keep_alive_s"),
        ("/generate", {"prompt": "x", "deadline_s": 0}, "deadline_s"),
        ("/generate/batch", {"prompts": []}, "prompts"),
        ("/generate/batch", {"prompts": ["x"] * 257}, "prompts"),
        ("/chat", {}, "messages"),
        ("/chat", {"messages": []}, "messages"),
        ("/chat", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ("/chat", {"messages": [{"role": "user", "content": "x", "images": []}]}, "messages[0].images"),
        ("/chat", {**HELLO, "tools": [{"name": "f"}] * 129}, "tools"),
        ("/chat", {**HELLO, "tool_choice": "x" * 257}, "tool_choice"),
        ("/chat", {**HELLO, "conversation_id": "abcd", "store": True}, "store"),
        ("/embeddings", {"texts": []}, "texts"),
        ("/embeddings", {"texts": [1]}, "texts[0]"),
        ("/embeddings", {"input": "x"}, "texts"),
        ("/rerank", {"query": "q", "documents": []}, "documents"),
        ("/tokenize", {"text": None}, "text"),
        ("/detokenize", {"ids": ["1"]}, "ids[0]"),
        ("/models/load", {}, "model"),
        ("/models/unload", {"model": ""}, "model"),
        ("/apply-template", {"messages": "x"}, "messages"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    client: Client, service: FakeService, path: str, body: dict[str, Any], param: str
) -> None:
    status, _, found = refusal(client, path, body)
    assert (status, found) == (400, param)
    assert service.works == []


@pytest.mark.parametrize("value", [True, "1", [], {}, 10**30, -(10**30), 1e308])
@pytest.mark.parametrize(
    "name",
    [
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "repetition_penalty",
        "seed",
        "top_logprobs",
        "priority",
    ],
)
def test_no_bound_lets_nonsense_through(client: Client, service: FakeService, name: str, value: Any) -> None:
    """Before anything is loaded, and by its name."""
    answer = client.ask("POST", "/generate", {"prompt": "x", "logprobs": True, name: value})
    assert answer.status == 400 and answer.json()["error"]["param"] == name
    assert service.works == []


@pytest.mark.parametrize(
    ("error", "status", "retried"),
    [
        (ModelNotFound("No."), 404, None),
        (UnsupportedTask("No."), 400, None),
        (ContextLengthExceeded(prompt_tokens=9, reserve=1, context_length=8), 400, None),
        (Busy("Full.", kind="server_busy", retry_after_s=3.2), 503, "4"),
        (Busy("Late.", kind="queue_timeout"), 503, "1"),
        (Busy("Slow.", retry_after_s=1e9), 503, "120"),
        (HubUnavailable("Off."), 502, None),
        (StorageError("Full."), 507, None),
        (InsufficientMemory("Big.", need_bytes=2, have_bytes=1), 507, None),
        (ModelCorrupt("Bad."), 422, None),
        (NumericalError("NaN."), 500, None),
        (LocalLLMError("What?", kind="something_new"), 500, None),
        (ZeroDivisionError("canary"), 500, None),
    ],
)
def test_each_failure_has_its_status(
    client: Client, service: FakeService, error: Exception, status: int, retried: str | None
) -> None:
    service.refusal = error
    for path in ("/chat", "/chat/stream"):
        answer = client.ask("POST", path, HELLO)
        assert (answer.status, answer.headers.get("retry-after")) == (status, retried)
        assert (answer.headers.get("x-should-retry") == "false") == (status >= 500 and retried is None)
        assert "canary" not in answer.body.decode() and answer.json()["error"]["kind"]


def test_a_stream_tells_the_same_as_the_whole(client: Client, service: FakeService) -> None:
    service.events = (
        Progress("queued", 2, 3), Delta("content", "He\nl\u2028", (1,)), ToolCallDelta(0, "c", "f", "{}"),
        ToolCallEvent(ToolCall("c", "f", {})), END,
    )  # fmt: skip
    events = client.ask("POST", "/chat/stream", HELLO).events()
    assert [name for name, _ in events] == [
        "begin",
        "progress",
        "delta",
        "tool_call_delta",
        "tool_call",
        "finish",
    ]
    assert events[0][1]["prompt_tokens"] == 3 and events[1][1] == {"stage": "queued", "done": 2, "total": 3}
    assert events[2][1] == {"channel": "content", "text": "He\nl\u2028", "token_ids": [1]}
    service.events = (Delta("content", "x"), END)
    whole = client.ask("POST", "/chat", HELLO).json()
    assert {name: value for name, value in events[-1][1].items() if name in ("usage", "finish_reason")} == {
        "usage": whole["usage"],
        "finish_reason": "stop",
    }
    assert all(reply.closed for reply in service.replies)


def test_a_stream_that_fails_ends_with_one_error_event(client: Client, service: FakeService) -> None:
    service.events = (Delta("content", "x"), EngineError('Broken "here".\n'))
    answer = client.ask("POST", "/generate/stream", {"prompt": "x"})
    assert answer.status == 200 and [name for name, _ in answer.events()] == ["begin", "delta", "error"]
    assert answer.events()[-1][1]["error"]["kind"] == "engine_error" and answer.parts[-1] == b""
    assert answer.events()[-1][1]["request_id"] == answer.headers["x-request-id"]


def test_what_fits_into_an_address_can_be_asked_with_get(client: Client, service: FakeService) -> None:
    query = "prompt=Once%20upon&max_new_tokens=5&temperature=0.5&stop=a&stop=b&seed=3"
    assert client.ask("GET", f"/generate/stream?{query}").events()[-1][0] == "finish"
    assert service.works[0].prompt == "Once upon"
    assert service.works[0].changes == {
        "max_new_tokens": 5,
        "temperature": 0.5,
        "stop": ("a", "b"),
        "seed": 3,
    }
    assert client.ask("GET", "/chat/stream?message=Hi&system=Be").status == 200
    assert service.works[1].messages == (Message("system", "Be"), Message("user", "Hi"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "prompt is required."),
        ("prompt=x&max_tokens=5", "max_tokens is no parameter of this path."),
        ("prompt=x&temperature=warm", "temperature should be a valid number"),
        ("prompt=x&temperature=nan", "temperature should be a finite number"),
        ("prompt=x&%0d%0a=1", "A parameter is no parameter of this path."),
        (f"prompt={'x' * 8192}", "over 8192 bytes"),
    ],
)
def test_a_wrong_address_is_refused(client: Client, query: str, said: str) -> None:
    answer = client.ask("GET", f"/generate/stream?{query}")
    assert answer.status == 400 and said in answer.json()["error"]["message"]


def test_a_batch_answers_each_at_its_place(client: Client, service: FakeService) -> None:
    found = client.ask("POST", "/generate/batch", {"prompts": ["a", "b", "c"], "top_k": 2}).json()["results"]
    assert [one["text"] for one in found] == ["Hello"] * 3
    assert [work.prompt for work in service.works] == ["a", "b", "c"]
    service.refusal = ModelNotFound("No.")
    assert refusal(client, "/generate/batch", {"prompts": ["a", "b"]}) == (404, "model_not_found", None)


def test_one_bad_text_of_a_batch_harms_no_other(make: Make) -> None:
    class Picky(FakeService):
        async def begin(self, work: Any) -> Any:
            self.refusal = (
                ContextLengthExceeded(prompt_tokens=9, reserve=1, context_length=8)
                if work.prompt == "b"
                else None
            )
            return await super().begin(work)

    results = make(Picky()).ask("POST", "/generate/batch", {"prompts": ["a", "b", "c"]}).json()["results"]
    assert [one.get("text") for one in results] == ["Hello", None, "Hello"]
    assert results[1]["error"]["kind"] == "context_length_exceeded"


def test_texts_and_vectors(client: Client, service: FakeService) -> None:
    found = client.ask("POST", "/embeddings", {"texts": ["a", "b"], "dimensions": 2}).json()
    assert found["embeddings"] == [[1.0, 0.0]] * 2 and found["usage"] == {
        "prompt_tokens": 4,
        "total_tokens": 4,
    }
    assert service.calls == [("embed", "local", ("a", "b"), 2)]
    ranked = client.ask("POST", "/rerank", {"query": "q", "documents": ["x", "y"], "top_n": 1}).json()
    assert ranked["results"] == [{"index": 1, "score": 0.1, "document": "y"}]
    assert client.ask("POST", "/tokenize", {"text": "Hi"}).json() == {
        "model": "fake",
        "ids": [72, 105],
        "num_tokens": 2,
    }
    assert client.ask("POST", "/detokenize", {"ids": [72, 105]}).json()["text"] == "Hi"
    rendered = client.ask("POST", "/apply-template", HELLO).json()
    assert (rendered["prompt_text"], rendered["prompt_ids"], rendered["prompt_tokens"]) == (
        "<user>Hi",
        [1, 2],
        2,
    )


def test_the_server_and_its_models(client: Client, service: FakeService) -> None:
    assert client.ask("GET", "/").json()["name"] == "llm-local"
    model = client.ask("GET", "/models").json()["models"][0]
    assert (model["name"], model["context_length"], model["capabilities"]) == (
        "fake",
        512,
        ["chat", "completion"],
    )
    able = client.ask("GET", "/capabilities").json()["models"]["fake"]
    assert "temperature" in able["options"] and not {"tools", "think"} & set(able["options"])
    info = client.ask("GET", "/info").json()
    assert info["default_model"] == "fake" and info["loaded"][0]["name"] == "fake" and info["uptime_s"] >= 0
    assert "secret/path" not in json.dumps([model, info])
    assert client.ask("GET", "/metrics").body == b"llm_local_up 1\n"
    assert client.ask("POST", "/models/load", {"model": "fake", "keep_alive_s": -1}).json()["name"] == "fake"
    assert client.ask("POST", "/models/unload", {"model": "fake"}).json() == {
        "model": "fake",
        "unloaded": True,
    }
    assert service.calls == [("load", "fake", -1.0), ("unload", "fake")]
    assert ("GET", "/models", 200) in service.http


def test_an_exchange_is_kept_and_gone_on_with(client: Client, service: FakeService, tmp_path: Path) -> None:
    first = client.ask("POST", "/chat", {**HELLO, "store": True}).json()
    wanted = first["conversation_id"]
    assert first["persisted"] is True
    second = {"conversation_id": wanted, "messages": [{"role": "user", "content": "More"}]}
    events = client.ask("POST", "/chat/stream", second).events()
    assert events[0][1]["conversation_id"] == wanted and events[-1][1]["persisted"] is True
    assert [message.content for message in service.works[1].messages or ()] == ["Hi", "Hello", "More"]
    store = ConversationStore.open(tmp_path / "conversations.db")
    stored = store.messages("local", wanted)
    store.close()
    assert [(one.message.role, one.message.content, one.status) for one in stored] == [
        ("user", "Hi", "complete"),
        ("assistant", "Hello", "complete"),
        ("user", "More", "complete"),
        ("assistant", "Hello", "complete"),
    ]
    assert stored[1].facts is not None and stored[1].facts.usage == USAGE
    assert refusal(client, "/chat", {**second, "conversation_id": "feedfeed"})[:2] == (
        404,
        "conversation_not_found",
    )


def test_a_broken_answer_is_kept_as_that(client: Client, service: FakeService, tmp_path: Path) -> None:
    service.events = (Delta("content", "Half"), EngineError("Broken."))
    wanted = client.ask("POST", "/chat/stream", {**HELLO, "store": True}).events()[0][1]["conversation_id"]
    store = ConversationStore.open(tmp_path / "conversations.db")
    last = store.messages("local", wanted)[-1]
    store.close()
    assert (last.message.content, last.status) == ("Half", "interrupted")


def test_a_conversation_is_its_owners_alone(make: Make, service: FakeService) -> None:
    client = make(service, "user:first-user-key,user:second-user-key")
    one, two = {"x-api-key": "first-user-key"}, {"x-api-key": "second-user-key"}
    wanted = client.ask("POST", "/chat", {**HELLO, "store": True}, one).json()["conversation_id"]
    foreign = client.ask("POST", "/chat", {**HELLO, "conversation_id": wanted}, two)
    missing = client.ask("POST", "/chat", {**HELLO, "conversation_id": "0" * len(wanted)}, two)
    assert foreign.status == missing.status == 404
    assert foreign.json()["error"]["kind"] == missing.json()["error"]["kind"]
    assert len({work.caller.owner for work in service.works}) == 1


def test_a_disk_that_refuses_costs_no_answer(
    make: Make, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(service)

    def refuse(*_: Any, **__: Any) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(ConversationStore, "create", refuse)
    answer = client.ask("POST", "/chat", {**HELLO, "store": True})
    assert answer.status == 200 and answer.json()["text"] == "Hello"
    assert answer.json()["persisted"] is False and answer.headers["x-persisted"] == "false"


def test_a_client_that_leaves_ends_the_work(client: Client, service: FakeService) -> None:
    service.events = (Delta("content", "x"), None)

    async def leave(path: str) -> int:
        client.gone.clear()
        asking = asyncio.ensure_future(client.call("POST", path, {"prompt": "x"}))
        await asyncio.sleep(0.05)
        client.gone.set()
        return (await asyncio.wait_for(asking, 1)).status

    assert client.run(leave("/generate")) == 0
    assert client.run(leave("/generate/stream")) == 200
    assert all(reply.closed for reply in service.replies) and service.http[-1][2] == 499


def test_nothing_new_is_taken_while_the_server_ends(client: Client, service: FakeService) -> None:
    async def ending() -> None:
        client.app.state.lifecycle.begin_drain(asyncio.get_running_loop())

    client.run(ending())
    answer = client.ask("POST", "/chat", HELLO)
    assert (answer.status, answer.json()["error"]["kind"], answer.headers["retry-after"]) == (
        503,
        "shutting_down",
        "5",
    )
    assert client.ask("GET", "/ready").status == 503 and client.ask("GET", "/health").status == 200
    assert service.works == []


def test_ready_says_why_it_is_not(client: Client, service: FakeService) -> None:
    service.ready = Readiness(False, "fake is being loaded.")
    answer = client.ask("GET", "/ready")
    assert (answer.status, answer.json()["reason"]) == (503, "fake is being loaded.")
