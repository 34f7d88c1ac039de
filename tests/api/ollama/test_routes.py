"""Ollama's routes over a service with a script: framing, headers, failures, who may what."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.asgi import Answer, Client
from api.conftest import Make
from api.fake_service import LOADED, FakeReply, FakeService
from llm_local.errors import (
    Busy,
    ContextLengthExceeded,
    EngineError,
    HubUnavailable,
    InvalidRequest,
    LocalLLMError,
    ModelNotFound,
    UnsupportedTask,
)
from llm_local.events import (
    ContextTrimmed,
    Delta,
    Finish,
    Progress,
    Timings,
    TokenLogprob,
    ToolCallEvent,
    Usage,
)
from llm_local.loaders.card import Capcapabilities, ModelCard
from llm_local.messages import ToolCall
from llm_local.service import EmbeddedTexts, KnownModel, ShownModel, Work

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "fake", "messages": HELLO}
GENERATE = {"model": "fake", "prompt": "Hello"}
BODIES: dict[str, dict[str, Any]] = {"/api/chat": CHAT, "/api/generate": GENERATE}
ABLE = frozenset({"chat", "completion", "tools"})
FINISH = Finish("stop", Usage(3, 1, 2), Timings())
ADMIN, USER = "the-key-of-an-admin", "the-key-of-a-user"


class OllamaService(FakeService):
    """With what this dialect asks for beyond the others. `progress` is the script of a download."""

    progress: tuple[Any, ...] = ()

    async def begin(self, work: Work) -> FakeReply:
        reply = await super().begin(work)
        reply.token_bytes = lambda token_id: b"t%d" % token_id  # type: ignore[attr-defined]
        return reply

    async def models(self) -> list[KnownModel]:
        fake = KnownModel("fake", "hub", "complete", 9, 1.0, "LlamaForCausalLM", 512, ABLE, loaded=LOADED)
        mine = dataclasses.replace(fake, name="Mine", kind="directory", modified=2.0, loaded=None)
        return [fake, mine, dataclasses.replace(fake, name="half", state="incomplete", loaded=None)]

    async def show(self, name: str) -> ShownModel:
        for known in await self.models():
            if known.name == name:
                card = ModelCard("safetensors", chat_template="x", capabilities=Capcapabilities(chat=True))
                return ShownModel(known, card)
        raise ModelNotFound(f"{name!r} is not on this machine.", "Fetch it.")

    async def load(self, model: str | None, keep_alive_s: float | None = None) -> Any:
        if model == "nope":
            raise ModelNotFound("'nope' is not on this machine.", "Fetch it.")
        return await super().load(model, keep_alive_s)

    async def embed(self, caller: Any, model: str | None, texts: Any, **more: Any) -> EmbeddedTexts:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append(("embed", model, tuple(texts), more))
        count = len(texts)
        return EmbeddedTexts("fake", ((3.0, 4.0),) * count, (2,) * count, (5,) * count, 0.5, 0.01)

    async def copy(self, source: str, name: str) -> KnownModel:
        await self.show(source)
        self.calls.append(("copy", source, name))
        return (await self.models())[0]

    async def delete(self, name: str) -> tuple[Any, ...]:
        await self.show(name)
        self.calls.append(("delete", name))
        return ()

    async def pull(self, name: str) -> AsyncIterator[Progress]:
        self.calls.append(("pull", name))
        for event in self.progress:
            if isinstance(event, Exception):
                raise event
            yield event


@pytest.fixture
def service() -> OllamaService:
    return OllamaService()


def acts(service: OllamaService) -> list[tuple[Any, ...]]:
    """What was done, without looks at the line."""
    return [call for call in service.calls if call[0] != "check_room"]


def lines(answer: Answer) -> list[dict[str, Any]]:
    """The lines of a stream, each one JSON object."""
    assert answer.headers["content-type"] == "application/x-ndjson"
    *found, rest = answer.body.decode().split("\n")
    assert rest == ""
    return [json.loads(line) for line in found]


def test_a_chat_streams_unless_it_is_told_not_to(client: Client, service: OllamaService) -> None:
    answer = client.ask("POST", "/api/chat", CHAT)
    *parts, end = lines(answer)
    assert [part["message"] for part in parts] == [
        {"role": "assistant", "content": "Hel"}, {"role": "assistant", "content": "lo"},
    ]  # fmt: skip
    assert all(list(part) == ["model", "created_at", "message", "done"] for part in parts)
    assert (end["message"]["content"], end["done"], end["done_reason"]) == ("", True, "stop")
    assert (end["prompt_eval_count"], end["eval_count"]) == (3, 2)
    assert (end["prompt_eval_duration"], end["eval_duration"]) == (10_000_000, 20_000_000)
    assert type(end["total_duration"]) is int and end["total_duration"] > 0
    assert end["warnings"] == ["a notice"] and "context" not in end
    assert answer.headers["x-llm-local-seed"] == "7" and "x-llm-local-ignored" not in answer.headers
    whole = client.ask("POST", "/api/chat", CHAT | {"stream": False})
    assert whole.headers["content-type"] == "application/json; charset=utf-8"
    assert whole.json()["message"] == {"role": "assistant", "content": "Hello"}
    assert end.keys() == whole.json().keys()
    assert all(reply.closed for reply in service.replies)


def test_generate_ends_with_the_ids_to_go_on_from(client: Client, service: OllamaService) -> None:
    *parts, end = lines(client.ask("POST", "/api/generate", GENERATE))
    assert "".join(part["response"] for part in parts) == "Hello" and end["response"] == ""
    assert end["context"] == [11, 12, 13, 1, 2]
    whole = client.ask("POST", "/api/generate", GENERATE | {"stream": False, "context": [4]}).json()
    assert (whole["response"], whole["context"]) == ("Hello", [11, 12, 13, 1, 2])
    assert service.works[1].before_ids == (4,)
    raw = client.ask("POST", "/api/generate", GENERATE | {"stream": False, "raw": True}).json()
    assert "context" not in raw and service.works[2].prompt == "Hello"


def test_the_name_comes_back_as_it_was_asked_for(client: Client, service: OllamaService) -> None:
    for asked, ours in (
        ("fake:latest", "fake"),
        ("MINE", "Mine"),
        ("FAKE:Latest", "fake"),
        ("other", "other"),
    ):
        (*_, end) = lines(client.ask("POST", "/api/chat", CHAT | {"model": asked}))
        assert end["model"] == asked and service.works[-1].model == ours


def test_thoughts_and_calls_have_parts_of_their_own(client: Client, service: OllamaService) -> None:
    service.events = [
        Delta("reasoning", "hm", (1,)),
        Delta("content", "", (2,)),
        ToolCallEvent(ToolCall("a1", "f", {"x": 1})),
        ToolCallEvent(ToolCall("a2", "g", {})),
        Finish("tool_calls", Usage(3, 0, 5), Timings()),
    ]
    tools = [{"function": {"name": "f"}}, {"function": {"name": "g"}}]
    calls = [
        {"id": "a1", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
        {"id": "a2", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]
    thought, first, second, end = lines(client.ask("POST", "/api/chat", CHAT | {"tools": tools}))
    assert thought["message"] == {"role": "assistant", "content": "", "thinking": "hm"}
    assert [part["message"]["tool_calls"] for part in (first, second)] == [calls[:1], calls[1:]]
    assert end["done_reason"] == "stop" and "tool_calls" not in end["message"]
    whole = client.ask("POST", "/api/chat", CHAT | {"tools": tools, "stream": False}).json()
    assert whole["message"] == {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": calls}
    assert len(service.works[0].tools) == 2


def test_logprobs(client: Client, service: OllamaService) -> None:
    found = (TokenLogprob(1, -0.5, ((1, -0.5), (2, -math.inf))),)
    service.events = [Delta("content", "a", (1,), found), Delta("content", "", (2,), found), FINISH]
    body = CHAT | {"logprobs": True, "top_logprobs": 2}
    first, held, end = lines(client.ask("POST", "/api/chat", body))
    entry = {"token": "t1", "logprob": -0.5, "bytes": [116, 49]}
    other = {"token": "t2", "logprob": -9999.0, "bytes": [116, 50]}
    assert first["logprobs"] == held["logprobs"] == [{**entry, "top_logprobs": [entry, other]}]
    assert "logprobs" not in end
    assert len(client.ask("POST", "/api/chat", body | {"stream": False}).json()["logprobs"]) == 2


def test_what_was_trimmed_is_told_twice(client: Client, service: OllamaService) -> None:
    service.trimmed = ContextTrimmed(4, 900)
    for stream in (True, False):
        answer = client.ask("POST", "/api/chat", CHAT | {"stream": stream})
        assert answer.headers["x-llm-local-context-trimmed"] == "messages=4, tokens=900"
        end = lines(answer)[-1] if stream else answer.json()
        assert any("900 tokens" in one for one in end["warnings"])
    assert service.works[0].policy == "trim-oldest"


def test_what_is_ignored_is_named(client: Client) -> None:
    body = CHAT | {"temperature": 1, "options": {"num_ctx": 9999, "foo": 1}, "stream": False}
    answer = client.ask("POST", "/api/chat", body)
    assert set(answer.headers["x-llm-local-ignored"].split(", ")) == {
        "temperature", "options.num_ctx", "options.foo",
    }  # fmt: skip
    assert any("9999" in one and "512" in one for one in answer.json()["warnings"])


def test_an_empty_request_loads_and_unloads(client: Client, service: OllamaService) -> None:
    for path, said in (
        ("/api/generate", {"response": ""}),
        ("/api/chat", {"message": {"role": "assistant", "content": ""}}),
    ):
        for keep_alive, reason in ((None, "load"), ("10m", "load"), (0, "unload"), ("0", "unload")):
            answer = client.ask("POST", path, {"model": "fake", "keep_alive": keep_alive})
            assert answer.headers["content-type"] == "application/json; charset=utf-8"
            found = answer.json()
            found.pop("created_at")
            assert found == {"model": "fake", **said, "done": True, "done_reason": reason}
    assert acts(service)[:4] == [
        ("load", "fake", None), ("load", "fake", 600.0), ("unload", "fake"), ("unload", "fake"),
    ]  # fmt: skip
    odd = client.ask(
        "POST", "/api/generate", {"model": "fake", "b\u00e0\n": 1, "options": {"a": 1}, "images": None}
    )
    assert odd.status == 200 and set(odd.headers["x-llm-local-ignored"].split(", ")) == {
        "options",
        "?",
        "options.a",
    }
    for keep_alive in (None, 0):
        missing = client.ask("POST", "/api/chat", {"model": "nope", "keep_alive": keep_alive})
        assert (missing.status, missing.json()["error"]) == (404, "model 'nope' not found")
    assert not service.works


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        (ModelNotFound("No.", "Fetch it."), 404, "model 'fake' not found"),
        (InvalidRequest("No.", "Yes."), 400, "No. Yes."),
        (ContextLengthExceeded(prompt_tokens=700, reserve=32, context_length=512), 400,
         "the input length exceeds the context length (700 tokens and 32 for the reply, of 512)"),
        (Busy("Full.", retry_after_s=2, kind="server_busy"), 503, "Full."),
        (EngineError("It broke."), 500, "It broke."),
        (RuntimeError("secret"), 500, "The server failed at this request; its log says why."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", BODIES)
def test_failures_before_the_first_byte_have_their_status_streamed_or_not(
    client: Client, service: OllamaService, path: str, failure: Exception, status: int, words: str
) -> None:
    service.refusal = failure
    for stream in (True, False):
        answer = client.ask("POST", path, BODIES[path] | {"stream": stream})
        assert answer.status == status and answer.headers["content-type"].startswith("application/json")
        assert answer.json()["error"] == words and len(answer.json()["request_id"]) == 32


def test_what_a_model_is_not_made_for(client: Client, service: OllamaService) -> None:
    service.refusal = UnsupportedTask("It embeds.", param="model")
    for path, task in (("/api/chat", "chat"), ("/api/generate", "generate")):
        assert client.ask("POST", path, BODIES[path]).json()["error"] == (
            f'"fake" does not support {task}. It embeds.'
        )


@pytest.mark.parametrize("path", BODIES)
def test_a_failure_after_the_first_byte_is_the_last_line(
    client: Client, service: OllamaService, path: str
) -> None:
    service.events = [Delta("content", "Hel", (1,)), EngineError("It broke.")]
    first, error = lines(client.ask("POST", path, BODIES[path]))
    assert first["done"] is False and error["error"] == "It broke."
    service.events = [Delta("content", "Hel", (1,)), EngineError("It broke.")]
    whole = client.ask("POST", path, BODIES[path] | {"stream": False})
    assert (whole.status, whole.json()["error"]) == (500, "It broke.")
    assert all(reply.closed for reply in service.replies)


def test_a_reply_that_is_broken_off_is_no_answer(client: Client, service: OllamaService) -> None:
    service.events = [dataclasses.replace(FINISH, reason="cancelled")]
    service_begin = service.begin

    async def begin(work: Work) -> FakeReply:
        reply = await service_begin(work)
        reply.timed_out = False  # type: ignore[attr-defined]
        return reply

    service.begin = begin  # type: ignore[method-assign]
    assert "broken off" in lines(client.ask("POST", "/api/chat", CHAT))[-1]["error"]


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_ends_the_reply(client: Client, service: OllamaService, stream: bool) -> None:
    service.events = [Delta("content", "Hel", (1,)), None]

    async def leave() -> None:
        call = asyncio.ensure_future(client.call("POST", "/api/chat", CHAT | {"stream": stream}))
        while not service.replies:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert not service.replies[0].closed
        client.gone.set()
        await call

    client.run(leave())
    assert service.replies[0].closed


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "missing request body"),
        (b"{", "The request body is not JSON"),
        (b"[]", "The request body is a JSON array"),
        ({}, "model is required"),
        ({"model": ""}, "model is required"),
        ({"model": 5}, "model "),
        (CHAT | {"messages": "Hi"}, "messages "),
        (CHAT | {"messages": [{"content": "x"}]}, "messages[0].role is required."),
        (CHAT | {"stream": "yes"}, "stream "),
        (CHAT | {"options": []}, "options "),
        (CHAT | {"options": {"temperature": "x"}}, 'option "temperature" must be of type float32'),
        (CHAT | {"format": "xml"}, 'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
        (CHAT | {"think": True}, '"fake" does not support thinking'),
    ],
)
def test_wrong_bodies_are_400_in_ollamas_words(client: Client, body: Any, words: str) -> None:
    answer = client.ask("POST", "/api/chat", body, {"content-type": "application/x-www-form-urlencoded"})
    assert answer.status == 400 and answer.json()["error"].startswith(words), answer.json()


def test_other_paths_and_methods(client: Client) -> None:
    for method, path, status in (
        ("GET", "/api/chat", 405),
        ("POST", "/api/none", 404),
        ("GET", "/api/delete", 405),
    ):
        answer = client.ask(method, path)
        assert answer.status == status and isinstance(answer.json()["error"], str)


def test_what_is_not_done_here_says_so(client: Client) -> None:
    for path in ("/api/push", "/api/create", "/api/blobs/sha256:00"):
        answer = client.ask("POST", path, {"model": "fake"})
        assert answer.status == 400 and "is not supported" in answer.json()["error"]


def test_embed(client: Client, service: OllamaService) -> None:
    answer = client.ask("POST", "/api/embed", {"model": "fake:latest", "input": ["a", "b"], "options": {}})
    found = answer.json()
    assert found["embeddings"] == [[0.6, 0.8], [0.6, 0.8]] and found["model"] == "fake:latest"
    assert (found["prompt_eval_count"], found["load_duration"]) == (4, 500_000_000)
    assert answer.headers["x-llm-local-context-trimmed"] == "tokens=10"
    assert "x-llm-local-ignored" not in answer.headers
    body = {
        "model": "fake",
        "input": "a",
        "dimensions": 1,
        "truncate": False,
        "keep_alive": "1m",
        "options": {"num_ctx": 1},
    }
    assert client.ask("POST", "/api/embed", body).headers["x-llm-local-ignored"] == "options"
    assert acts(service) == [
        ("embed", "fake", ("a", "b"), {"dimensions": None, "truncate": True, "keep_alive_s": None}),
        ("embed", "fake", ("a",), {"dimensions": 1, "truncate": False, "keep_alive_s": 60.0}),
    ]
    for nothing in ("", [], None):
        assert (
            client.ask("POST", "/api/embed", {"model": "fake", "input": nothing}).json()["embeddings"] == []
        )
    for wrong in (5, [1], [["a"]], {"a": 1}):
        refused = client.ask("POST", "/api/embed", {"model": "fake", "input": wrong})
        assert (refused.status, refused.json()["error"]) == (400, "invalid input type")
    service.refusal = InvalidRequest(
        "Text 1 has 9 tokens, over 5.", "Split it.", kind="context_length_exceeded"
    )
    long = client.ask("POST", "/api/embed", {"model": "fake", "input": "x", "truncate": False})
    assert long.status == 400
    assert long.json()["error"].startswith("the input length exceeds the context length: Text 1 has 9")


def test_the_older_embeddings(client: Client) -> None:
    found = client.ask("POST", "/api/embeddings", {"model": "fake", "prompt": "a"})
    assert found.json() == {"embedding": [3.0, 4.0]}
    assert client.ask("POST", "/api/embeddings", {"model": "fake", "prompt": ""}).json() == {"embedding": []}


def test_models(client: Client) -> None:
    for method in ("GET", "POST"):
        listed = client.ask(method, "/api/tags").json()["models"]
        assert [one["name"] for one in listed] == [
            "Mine:latest",
            "fake:latest",
        ]  # the newest first, whole ones only
    assert client.ask("HEAD", "/api/tags").status == client.ask("HEAD", "/api/version").status == 200
    (running,) = client.ask("GET", "/api/ps").json()["models"]
    assert (running["name"], running["size"], running["context_length"]) == ("fake:latest", 20, 512)
    version = client.ask("GET", "/api/version").json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)
    for field in ("model", "name"):
        shown = client.ask("POST", "/api/show", {field: "fake:latest", "verbose": True})
        assert shown.json()["model_info"]["llama.context_length"] == 512
        assert shown.headers["x-llm-local-ignored"] == "verbose"
    unknown = client.ask("POST", "/api/show", {"model": "nope"})
    assert (unknown.status, unknown.json()["error"]) == (404, "model 'nope' not found")
    assert client.ask("POST", "/api/show", {}).json()["error"] == "model is required"


def test_copy_and_delete(client: Client, service: OllamaService) -> None:
    copied = client.ask("POST", "/api/copy", {"source": "fake:latest", "destination": "second:latest"})
    assert (copied.status, copied.body) == (200, b"")
    for field in ("model", "name"):
        removed = client.ask("DELETE", "/api/delete", {field: "mine"})
        assert (removed.status, removed.body) == (200, b"")
    assert acts(service) == [("copy", "fake", "second"), ("delete", "Mine"), ("delete", "Mine")]
    missing = client.ask("POST", "/api/copy", {"source": "nope", "destination": "x"})
    assert (missing.status, missing.json()["error"]) == (404, 'model "nope" not found')
    assert client.ask("DELETE", "/api/delete", {"model": "nope"}).status == 404
    for body in ({"source": "", "destination": "x"}, {"source": "fake"}, {}):
        assert client.ask("POST", "/api/copy", body).status == 400


def test_a_pull_tells_how_far_it_is(client: Client, service: OllamaService) -> None:
    service.progress = (
        Progress("downloading", 0, None, "config.json"), Progress("downloading", 0, None, "again"),
        Progress("downloading", 5, 10, "model"), Progress("downloading", 10, 10, "model"),
    )  # fmt: skip
    found = lines(client.ask("POST", "/api/pull", {"name": "org/name:latest"}))
    bars = [line for line in found if "digest" in line]
    assert [(line.get("total"), line["completed"]) for line in bars] == [(None, 0), (10, 5), (10, 10)]
    assert len({line["digest"] for line in bars}) == 1 and bars[0]["digest"].startswith("sha256:")
    assert bars[0]["status"] == f"pulling {bars[0]['digest'][7:19]}"
    assert [line["status"] for line in found if line not in bars] == [
        "pulling manifest", "verifying sha256 digest", "writing manifest", "success",
    ]  # fmt: skip
    assert acts(service) == [("pull", "org/name")]
    whole = client.ask("POST", "/api/pull", {"model": "org/name", "stream": False, "insecure": True})
    assert whole.json() == {"status": "success"} and whole.headers["x-llm-local-ignored"] == "insecure"


def test_a_pull_that_fails(client: Client, service: OllamaService) -> None:
    service.progress = (Progress("downloading", 1, 2), HubUnavailable("No network."))
    assert lines(client.ask("POST", "/api/pull", {"model": "org/name"}))[-1]["error"] == "No network."
    whole = client.ask("POST", "/api/pull", {"model": "org/name", "stream": False})
    assert (whole.status, whole.json()["error"]) == (502, "No network.")
    service.progress = (ModelNotFound("The hub has no such model."),)
    assert (
        lines(client.ask("POST", "/api/pull", {"model": "org/no"}))[-1]["error"] == "model 'org/no' not found"
    )


def test_what_is_of_this_machine_needs_no_hub(client: Client, service: OllamaService) -> None:
    assert lines(client.ask("POST", "/api/pull", {"model": "mine"}))[-1] == {"status": "success"}
    assert acts(service) == []


def test_what_changes_the_server_is_for_admins(make: Make, service: OllamaService) -> None:
    client = make(service, f"admin:{ADMIN},user:{USER}")
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/api/pull", {"model": "org/name"}), ("POST", "/api/copy", {"source": "fake", "destination": "x"}),
        ("DELETE", "/api/delete", {"model": "fake"}), ("POST", "/api/generate", {"model": "fake"}),
        ("POST", "/api/chat", {"model": "fake", "keep_alive": 0}),
    ]  # fmt: skip
    for method, path, body in changes:
        refused = client.ask(method, path, body, {"authorization": f"Bearer {USER}"})
        assert refused.status == 403 and "admin" in refused.json()["error"]
        assert client.ask(method, path, body, {"authorization": f"bearer {ADMIN}"}).status == 200
        assert client.ask(method, path, body).json()["error"].startswith("Incorrect API key")
    assert client.ask("POST", "/api/chat", CHAT, {"x-api-key": USER}).status == 200
    for path, body in (("/api/chat", CHAT), ("/api/embed", {"model": "fake", "input": "x"})):
        answer = client.ask("POST", path, {**body, "keep_alive": 0}, {"x-api-key": USER})
        assert answer.status == 200 and answer.headers["x-llm-local-ignored"] == "keep_alive"
    assert [work.keep_alive_s for work in service.works] == [None, None]
    assert [call[0] for call in acts(service)] == ["pull", "copy", "delete", "load", "unload", "embed"]
    assert service.works[0].caller.owner != "local"


def test_every_route_tells_a_curl_and_an_example_that_works(client: Client) -> None:
    document = client.ask("GET", "/openapi.json").json()
    found = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "Ollama" in operation.get("tags", ())
    ]
    assert {path.rpartition("/")[2] for _, path, _ in found} == set(
        "generate chat embed embeddings tags show ps pull copy delete version".split()
    )
    for method, path, operation in found:
        assert (
            f"`curl {'-X DELETE ' if method == 'delete' else ''}http://127.0.0.1:8000{path}"
            in operation["description"]
        )
        if "requestBody" in operation:
            for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
                value = json.loads(json.dumps(example["value"]).replace("starter", "fake"))
                value = {k: "fake" if k == "model" and path != "/api/pull" else v for k, v in value.items()}
                answer = client.ask(method.upper(), path, value)
                assert answer.status == 200, (path, answer.body)


def test_a_deadline_error_keeps_its_kind(client: Client, service: OllamaService) -> None:
    service.refusal = LocalLLMError("Too late.", kind="deadline_exceeded")
    assert client.ask("POST", "/api/chat", CHAT).status == 504
