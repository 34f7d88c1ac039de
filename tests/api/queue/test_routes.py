"""The queue over HTTP: what is handed in runs by itself, is seen by its owner alone, and can be read again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.asgi import Answer, Client
from api.conftest import Make
from api.fake_service import FakeService
from api.queue.scripted import FINISH, ScriptedService, settled, words
from llm_local.api.lifecycle import shutting_down
from llm_local.api.queue import jobs
from llm_local.errors import Busy, EngineError, ModelNotFound
from llm_local.events import Delta, Progress, ToolCallEvent
from llm_local.messages import ToolCall
from llm_local.runtime.line_facts import Place

HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_new_tokens": 5}


@pytest.fixture
def service() -> ScriptedService:
    return ScriptedService()


@pytest.fixture
def client(make: Make, service: ScriptedService) -> Iterator[Client]:
    made = make(service)
    yield made
    found = getattr(made.app.state, "jobs", None)
    if found is not None:
        made.run(found.finish(0.0))


async def added(client: Client, service: ScriptedService, body: Any = HELLO) -> tuple[str, Any]:
    """The id of a request that was handed in, and its reply."""
    adding = asyncio.create_task(client.call("POST", "/queue/add", body))
    await settled()
    reply = service.replies[-1]
    await reply.say()
    answer = await adding
    assert answer.status == 202, answer.body
    return answer.json()["id"], reply


async def shown(client: Client, job_id: str) -> Any:
    return (await client.call("GET", f"/queue/{job_id}")).json()


def numbered(answer: Answer) -> list[tuple[str, str, Any]]:
    """The server-sent events, as (id, event, data)."""
    found = []
    for block in answer.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def test_a_request_runs_by_itself_and_its_answer_is_there_when_somebody_asks(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service)
        assert (await shown(client, job_id))["status"] == "running"
        await reply.say(*words("Hel lo"))
        found = await shown(client, job_id)
        assert (found["status"], found["text"], found["finish_reason"]) == ("finished", "Hello", "stop")
        assert found["usage"]["total_tokens"] == 5
        assert found["id"] == job_id
        assert found["speed"].endswith(".")
        assert reply.closed
        assert service.works[0].changes == {"max_new_tokens": 5}

    client.run(play())


def test_a_text_to_continue_is_taken_as_well(client, service) -> None:
    async def play() -> None:
        await added(client, service, {"prompt": "Once", "priority": -2, "deadline_s": 9.0})
        assert (service.works[0].prompt, service.works[0].priority) == ("Once", -2)
        assert service.works[0].deadline_s == 9.0

    client.run(play())


def test_the_place_in_line_is_shown_and_streamed(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service)
        reply.place = Place(2, 5, 7.0)
        await reply.say(Progress("queued", 2, 5))
        found = await shown(client, job_id)
        assert (found["status"], found["position"], found["waiting"], found["eta_s"]) == ("queued", 2, 5, 7.0)
        reply.place = Place(1, 4, 3.5)
        await reply.say(Progress("queued", 1, 4))
        reply.place = None
        await reply.say(Progress("prefill", 3, 3), *words("Hi"))
        events = numbered(await client.call("GET", f"/stream/{job_id}"))
        assert [event for _, event, _ in events] == [
            "begin",
            "queued",
            "queued",
            "progress",
            "delta",
            "finish",
        ]
        assert [number for number, _, _ in events] == [str(n) for n in range(1, 7)]
        assert events[2][2] == {"position": 1, "waiting": 4, "eta_s": 3.5}
        assert events[0][2]["id"] == job_id

    client.run(play())


def test_a_stream_follows_what_is_written_and_ends_with_it(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service)
        reading = [asyncio.create_task(client.call("GET", f"/stream/{job_id}")) for _ in range(2)]
        await settled()
        call = ToolCallEvent(ToolCall("call_1", "weather", {"city": "Bonn"}))
        await reply.say(Delta("reasoning", "hm", (1,)), call, *words("a b"))
        first, second = [numbered(answer) for answer in await asyncio.gather(*reading)]
        assert first == second
        assert [event for _, event, _ in first] == ["begin", "delta", "tool_call", "delta", "delta", "finish"]
        found = await shown(client, job_id)
        assert (found["reasoning"], found["tool_calls"][0]["name"]) == ("hm", "weather")

    client.run(play())


def test_a_reader_that_was_cut_off_goes_on_where_it_was(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service)
        await reply.say(*words("a b c"))
        everything = numbered(await client.call("GET", f"/stream/{job_id}"))
        for seen in range(len(everything)):
            header = {"last-event-id": str(seen)}
            rest = await client.call("GET", f"/stream/{job_id}", headers=header)
            same = await client.call("GET", f"/stream/{job_id}?last_event_id={seen}")
            assert numbered(rest) == numbered(same) == everything[seen:]
        over = await client.call("GET", f"/stream/{job_id}", headers={"last-event-id": str(len(everything))})
        assert (over.status, over.body) == (204, b""), "an EventSource stops asking"
        wrong = await client.call("GET", f"/stream/{job_id}", headers={"last-event-id": "-1"})
        assert (wrong.status, wrong.json()["error"]["param"]) == (400, "last_event_id")

    client.run(play())


def test_who_leaves_a_stream_cancels_nothing(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service)
        reading = asyncio.create_task(client.call("GET", f"/stream/{job_id}"))
        await reply.say(Delta("content", "a", (1,)))
        client.gone.set()
        await asyncio.wait({reading}, timeout=5)
        assert reading.done()
        client.gone.clear()
        await reply.say(*words("b"))
        assert (await shown(client, job_id))["text"] == "ab"

    client.run(play())


def test_cancelling_ends_it_and_twice_is_once(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service)
        await reply.say(Delta("content", "part", (1,)))
        for _ in range(3):
            found = await client.call("POST", f"/queue/{job_id}/cancel")
            assert (found.status, found.json()["status"], found.json()["text"]) == (200, "cancelled", "part")
        assert reply.closed
        events = numbered(await client.call("GET", f"/stream/{job_id}"))
        assert (events[-1][1], events[-1][2]["finish_reason"]) == ("finish", "cancelled")

    client.run(play())


def test_deleting_cancels_and_forgets(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service)
        first = await client.call("DELETE", f"/queue/{job_id}")
        assert (first.status, first.json()) == (200, {"id": job_id, "status": "cancelled", "deleted": True})
        assert reply.closed
        for method, path in (
            ("DELETE", f"/queue/{job_id}"),
            ("DELETE", f"/queue/{job_id}"),
            ("GET", f"/queue/{job_id}"),
            ("GET", f"/stream/{job_id}"),
            ("POST", f"/queue/{job_id}/cancel"),
        ):
            again = await client.call(method, path)
            assert (again.status, again.json()["error"]["kind"]) == (404, "request_not_found")

    client.run(play())


def test_one_that_still_waits_for_its_model_can_be_cancelled(client, service) -> None:
    async def play() -> None:
        service.loading = asyncio.Event()
        answer = await client.call("POST", "/queue/add", HELLO)
        job_id = answer.json()["id"]
        assert (answer.status, answer.json()["status"]) == (202, "loading")
        assert (await client.call("POST", f"/queue/{job_id}/cancel")).json()["status"] == "cancelled"
        events = numbered(await client.call("GET", f"/stream/{job_id}"))
        assert [(event, data["finish_reason"]) for _, event, data in events] == [("finish", "cancelled")]
        assert service.replies == []

    client.run(play())


@pytest.mark.parametrize(
    ("refusal", "status", "kind"),
    [
        (Busy("Full.", "Later.", retry_after_s=7.0, kind="server_busy"), 503, "server_busy"),
        (ModelNotFound("There is no model x."), 404, "model_not_found"),
    ],
)
def test_what_is_refused_at_once_says_so_at_once_and_leaves_nothing(
    client, service, refusal, status, kind
) -> None:
    service.refusal = refusal
    answer = client.ask("POST", "/queue/add", HELLO)
    assert (answer.status, answer.json()["error"]["kind"]) == (status, kind)
    assert answer.headers.get("retry-after") == ("7" if status == 503 else None)
    assert client.ask("GET", "/queue").json() == {"requests": []}


def test_what_fails_later_is_told_by_its_events(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service)
        await reply.say(Delta("content", "part", (1,)), EngineError("The engine stopped."))
        found = await shown(client, job_id)
        assert (found["status"], found["text"]) == ("failed", "part")
        assert found["error"] == {"kind": "engine_error", "message": "The engine stopped.", "hint": ""}
        for _ in range(2):
            answer = await client.call("GET", f"/stream/{job_id}")
            assert answer.events()[-1][1]["error"]["kind"] == "engine_error"

    client.run(play())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}], "prompt": "x"}, "prompt"),
        ({"prompt": "x", "stream": True}, "stream"),
    ],
)
def test_what_cannot_be_is_refused_by_name(client, service, body, param) -> None:
    service.refusal = AssertionError("never asked")
    answer = client.ask("POST", "/queue/add", body)
    assert (answer.status, answer.json()["error"]["param"]) == (400, param)


def test_a_user_cannot_push_in(make, service) -> None:
    client = make(service, keys="admin:rootrootrootroot,user:useruseruseruser")
    body = {"prompt": "x", "priority": 1}
    refused = client.ask("POST", "/queue/add", body, {"authorization": "Bearer useruseruseruser"})
    assert refused.status == 403
    assert service.works == []


def test_another_owner_sees_what_a_random_id_shows_byte_for_byte(make, service) -> None:
    client = make(service, keys="user:alicealicealice1,user:bobbobbobbobbob12")
    alice = {"authorization": "Bearer alicealicealice1"}
    bob = {"authorization": "Bearer bobbobbobbobbob12"}
    job_id = client.ask("POST", "/queue/add", HELLO, alice).json()["id"]
    assert client.ask("GET", f"/queue/{job_id}", headers=alice).status == 200

    def told(method: str, path: str) -> tuple[int, bytes, dict[str, str]]:
        answer = client.ask(method, path, headers=bob)
        request_id = answer.headers.pop("x-request-id")
        headers = {
            name: value for name, value in answer.headers.items() if not name.startswith("x-ratelimit")
        }
        return answer.status, answer.body.replace(request_id.encode(), b"ID"), headers

    for method, path in (
        ("GET", "/queue/{}"),
        ("GET", "/stream/{}"),
        ("POST", "/queue/{}/cancel"),
        ("DELETE", "/queue/{}"),
    ):
        theirs, random = told(method, path.format(job_id)), told(method, path.format("0" * 32))
        assert theirs == random
        assert theirs[0] == 404
    assert client.ask("GET", "/queue", headers=bob).json() == {"requests": []}
    assert client.ask("GET", "/queue/stats", headers=bob).json()["yours"]["running"] == 0
    found = client.ask("GET", "/queue", headers=alice).json()["requests"]
    assert [one["id"] for one in found] == [job_id]
    client.run(client.app.state.jobs.finish(0.0))


def test_statistics_are_of_the_lines_and_of_ones_own(client, service) -> None:
    async def play() -> None:
        _, reply = await added(client, service)
        await reply.say(FINISH)
        await added(client, service)
        found = (await client.call("GET", "/queue/stats")).json()
        assert found["yours"] == {
            "loading": 0, "queued": 0, "running": 1, "finished": 1, "failed": 0, "cancelled": 0,
        }  # fmt: skip
        assert found["lines"]["fake"]["refused_total"] == 3
        listed = (await client.call("GET", "/queue")).json()["requests"]
        assert [one["status"] for one in listed] == ["running", "finished"]

    client.run(play())


def test_an_exchange_is_kept_in_a_conversation_where_asked_for(client, service) -> None:
    async def play() -> None:
        job_id, reply = await added(client, service, {**HELLO, "store": True})
        await asyncio.sleep(0.2)
        await reply.say(*words("Hi"))
        await service_ended(client, job_id)
        found = await shown(client, job_id)
        assert found["persisted"] is True
        again = {**HELLO, "conversation_id": found["conversation_id"]}
        adding = asyncio.create_task(client.call("POST", "/queue/add", again))
        await asyncio.wait({adding}, timeout=5)
        assert [one.content for one in service.works[-1].messages] == ["Hello", "Hi", "Hello"]

    client.run(play())


async def service_ended(client: Client, job_id: str) -> None:
    job = client.app.state.jobs.find("local", job_id)
    await asyncio.wait({job.task}, timeout=5)
    assert job.ended


def test_what_has_ended_is_forgotten_after_a_while(client, service, monkeypatch) -> None:
    async def play() -> None:
        client.app.state.jobs = jobs.Jobs(client.app.state.lifecycle, kept_s=0.02)
        job_id, reply = await added(client, service)
        await asyncio.sleep(0.05)
        assert (await shown(client, job_id))["status"] == "running", "only what has ended"
        await reply.say(FINISH)
        await asyncio.sleep(0.05)
        assert (await client.call("GET", f"/queue/{job_id}")).status == 404

    client.run(play())


def test_what_is_kept_is_bounded(client, service, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "MAX_KEPT", 2)

    async def play() -> None:
        ids = []
        for _ in range(4):
            job_id, reply = await added(client, service)
            await reply.say(FINISH)
            ids.append(job_id)
        listed = (await client.call("GET", "/queue")).json()["requests"]
        assert [one["id"] for one in listed] == [ids[3], ids[2]]

    client.run(play())


def test_one_owner_does_not_push_out_what_is_kept_of_another(make, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "MAX_KEPT", 2)
    monkeypatch.setattr(jobs, "MAX_KEPT_BY_ALL", 3)
    client = make(FakeService(), keys="user:alicealicealice1,user:bobbobbobbobbob12")
    alice, bob = ({"authorization": f"Bearer {key}"} for key in ("alicealicealice1", "bobbobbobbobbob12"))
    kept = client.ask("POST", "/queue/add", HELLO, bob).json()["id"]
    for _ in range(6):
        client.ask("POST", "/queue/add", HELLO, alice)
    assert len(client.ask("GET", "/queue", headers=alice).json()["requests"]) == 2
    assert client.ask("GET", f"/queue/{kept}", headers=bob).json()["text"] == "Hello"


def test_a_server_that_ends_lets_them_finish_and_then_tells_them(client, service) -> None:
    async def play() -> None:
        quick, quick_reply = await added(client, service)
        slow, slow_reply = await added(client, service)
        found = client.app.state.jobs
        quick_job, slow_job = found.find("local", quick), found.find("local", slow)
        finishing = asyncio.create_task(found.finish(0.1))
        await settled()
        await quick_reply.say(FINISH)
        await finishing
        assert (quick_job.status, slow_job.status) == ("finished", "failed")
        assert slow_job.error is not None
        assert slow_job.error.args == shutting_down().args
        assert slow_reply.closed

    client.run(play())


def test_what_is_handed_in_again_with_its_key_is_the_same_request(make, service) -> None:
    client = make(service, "user:alice-key-0123456789,user:bobby-key-0123456789")
    alice, bobby = ({"authorization": f"Bearer {name}-key-0123456789"} for name in ("alice", "bobby"))
    key = {"idempotency-key": "the-same"}

    async def hand_in(who: dict[str, str], body: Any = HELLO) -> Answer:
        return await client.call("POST", "/queue/add", body, {**who, **key})

    async def play() -> None:
        adding = [asyncio.create_task(hand_in(who)) for who in (alice, alice, bobby)]
        await settled()
        assert len(service.replies) == 2  # one for each of them
        for reply in service.replies:
            await reply.say(*words("Hel lo"))
        first, again, other = [(await one).json()["id"] for one in adding]
        assert first == again != other
        lost = (await hand_in(alice)).json()
        assert (lost["id"], lost["text"], len(service.replies)) == (first, "Hello", 2)
        wrong = await hand_in(alice, {**HELLO, "max_new_tokens": 6})
        assert (wrong.status, wrong.json()["error"]["param"]) == (400, "Idempotency-Key")
        await client.call("DELETE", f"/queue/{first}", headers=alice)
        adding = [asyncio.create_task(hand_in(alice))]
        await settled()
        assert len(service.replies) == 3
        await service.replies[-1].say(*words("Hel lo"))
        assert (await adding[0]).json()["id"] != first

    client.run(play())
    client.run(client.app.state.jobs.finish(0.0))


def test_a_refused_request_may_come_again_with_its_key(client, service) -> None:
    service.refusal = Busy("Full.", kind="server_busy")
    key = {"idempotency-key": "k"}
    assert client.ask("POST", "/queue/add", HELLO, key).status == 503
    service.refusal = None

    async def play() -> None:
        adding = asyncio.create_task(client.call("POST", "/queue/add", HELLO, key))
        await settled()
        await service.replies[-1].say(*words("Hel lo"))
        assert (await adding).status == 202

    client.run(play())


def test_one_that_failed_later_is_tried_anew_under_its_key(client, service) -> None:
    key = {"idempotency-key": "k"}

    async def play() -> None:
        ids = []
        for last in (EngineError("It broke."), FINISH):
            adding = asyncio.create_task(client.call("POST", "/queue/add", HELLO, key))
            await settled()
            await service.replies[-1].say()
            ids.append((await adding).json()["id"])
            await service.replies[-1].say(last)
            await settled()
        assert len(set(ids)) == 2
        assert [(await shown(client, one))["status"] for one in ids] == ["failed", "finished"]

    client.run(play())


@pytest.mark.parametrize("keys", [("",), ("k" * 256,), ("a b",), ("k", "k"), ("\u00fc",)])
def test_keys_of_retries_have_bounds(client, keys) -> None:
    answer = client.ask("POST", "/queue/add", HELLO, [("idempotency-key", one) for one in keys])
    assert (answer.status, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
