"""The queue of a real server with the starter model: two places, a short line, a reply cache."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from api.live_server import LiveServer, running_server

LONG = {"prompt": "Once upon a time", "max_new_tokens": 1500, "temperature": 1.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = {"MAX_CONCURRENT_REQUESTS": "2", "MAX_WAITING_REQUESTS": "3", "RESPONSE_CACHE_MB": "8"}
    with running_server(tmp_path_factory.mktemp("queue"), **settings) as server:
        yield server


def add(server: LiveServer, body: dict[str, Any]) -> Any:
    status, found = server.ask("POST", "/queue/add", body)
    assert status == 202, found
    return found


def stream(
    server: LiveServer, job_id: str, after: int = 0, most: int = 100_000
) -> list[tuple[int, str, Any]]:
    """Events as (id, event, data); of too many only the first ones, and then the reader leaves."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    found: list[tuple[int, str, Any]] = []
    try:
        connection.request("GET", f"/stream/{job_id}", headers={"Last-Event-ID": str(after)})
        fields: dict[str, str] = {}
        for raw in connection.getresponse():
            line = raw.decode().rstrip("\n")
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
                fields = {}
                if len(found) == most:
                    break
    finally:
        connection.close()
    return found


def text_of(events: list[tuple[int, str, Any]]) -> str:
    return "".join(data["text"] for _, event, data in events if event == "delta")


def until(server: LiveServer, job_id: str, *statuses: str) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = server.ask("GET", f"/queue/{job_id}")[1]
        if found["status"] in statuses:
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def test_what_is_handed_in_is_what_is_asked_directly(server: LiveServer) -> None:
    body = {"prompt": "The house was", "max_new_tokens": 40, "temperature": 0.8, "seed": 5}
    directly = server.ask("POST", "/generate", body | {"seed": 5})[1]
    job_id = add(server, body)["id"]
    events = stream(server, job_id)
    assert text_of(events) == directly["text"]
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    for after in (1, len(events) // 2, len(events) - 1):
        assert stream(server, job_id, after) == events[after:]
    shown = until(server, job_id, "finished")
    assert (shown["text"], shown["seed"]) == (directly["text"], 5)


def test_the_line_is_seen_moves_up_and_refuses_when_it_is_full(server: LiveServer) -> None:
    jobs = [add(server, LONG | {"seed": seed}) for seed in range(5)]
    assert [job["position"] for job in jobs] == [None, None, 1, 2, 3]
    status, refused = server.ask("POST", "/queue/add", LONG)
    assert (status, refused["error"]["kind"]) == (503, "server_busy")
    line = server.ask("GET", "/queue/stats")[1]["lines"]["starter"]
    assert (line["running"], line["waiting"]) == (2, 3)
    ids = [job["id"] for job in jobs]
    assert server.ask("DELETE", f"/queue/{ids[2]}")[0] == 200
    assert server.ask("GET", f"/queue/{ids[3]}")[1]["position"] == 1
    seen = stream(server, ids[3], most=3)
    assert [data["position"] for _, event, data in seen if event == "queued"][0] == 2
    for job_id in (ids[0], ids[1], ids[4]):
        assert server.ask("POST", f"/queue/{job_id}/cancel")[1]["status"] == "cancelled"
    assert until(server, ids[3], "running", "finished")
    server.ask("POST", f"/queue/{ids[3]}/cancel")
    line = server.ask("GET", "/queue/stats")[1]["lines"]["starter"]
    assert (line["running"], line["waiting"]) == (0, 0)


def test_a_higher_priority_goes_first(server: LiveServer) -> None:
    running = [add(server, LONG | {"seed": seed}) for seed in (11, 12)]
    short = {"prompt": "a", "max_new_tokens": 1, "temperature": 1.0}
    low, high = add(server, short | {"priority": -3}), add(server, short | {"priority": 3})
    assert server.ask("GET", f"/queue/{low['id']}")[1]["position"] == 2
    assert server.ask("GET", f"/queue/{high['id']}")[1]["position"] == 1
    for job in running:
        server.ask("DELETE", f"/queue/{job['id']}")
    until(server, low["id"], "finished")
    until(server, high["id"], "finished")


def test_a_wait_that_is_too_long_is_a_queue_timeout_and_never_starts(server: LiveServer) -> None:
    running = [add(server, LONG | {"seed": seed, "max_new_tokens": 2000}) for seed in (21, 22, 23, 24)]
    impatient = add(server, {"prompt": "a", "max_new_tokens": 1, "temperature": 1.0, "deadline_s": 1.0})
    found = until(server, impatient["id"], "failed")
    assert found["error"]["kind"] in ("queue_timeout", "deadline_exceeded")
    assert found["text"] == ""
    for job in running:
        server.ask("DELETE", f"/queue/{job['id']}")


def test_a_kept_reply_is_the_same_streamed_or_not_and_says_so(server: LiveServer) -> None:
    body = {"messages": [{"role": "user", "content": "Hello!"}], "max_new_tokens": 12, "temperature": 0}
    first = server.ask("POST", "/chat", body)[1]
    end = time.monotonic() + 10
    again = server.ask("POST", "/chat", body)[1]
    while not again["usage"]["replayed_tokens"] and time.monotonic() < end:  # keeping it takes a moment
        again = server.ask("POST", "/chat", body)[1]
    streamed = stream(server, add(server, body)["id"])
    assert first["text"] == again["text"] == text_of(streamed)
    assert first["usage"]["replayed_tokens"] == 0
    for usage in (again["usage"], streamed[-1][2]["usage"]):
        assert usage["replayed_tokens"] == usage["completion_tokens"] == first["usage"]["completion_tokens"]
        assert usage["cached_tokens"] == usage["prompt_tokens"]
    assert again["timings"]["decode_s"] == 0
    assert again["speed"].startswith("Nothing was computed")
    drawn = {**body, "temperature": 1.0}
    assert all(server.ask("POST", "/chat", drawn)[1]["usage"]["replayed_tokens"] == 0 for _ in range(2))
    metrics = server.ask("GET", "/metrics")[1].decode()
    assert 'llm_local_response_cache_lookups_total{model="starter",result="hit"}' in metrics


def test_nothing_that_people_wrote_is_in_the_metrics_or_the_log(server: LiveServer) -> None:
    secret = "zebra7194crossing"
    server.ask("POST", "/queue/add", {"prompt": secret, "max_new_tokens": 4})
    until(server, add(server, {"prompt": secret, "max_new_tokens": 4})["id"], "finished")
    server.ask("POST", "/api/v1/chat", {"message": secret, "max_tokens": 4})
    assert secret not in server.ask("GET", "/metrics")[1].decode()
    assert secret not in server.log.read_text()


def test_a_conversation_goes_on_and_reads_only_what_is_new(server: LiveServer) -> None:
    chat = "/api/v1/chat"
    first = server.ask("POST", chat, {"message": "Hello!", "max_tokens": 12})[1]
    kept = first["conversation_id"]
    second = server.ask("POST", chat, {"message": "And you?", "conversation_id": kept, "max_tokens": 4})[1]
    assert second["usage"]["prompt_tokens"] > second["usage"]["cached_tokens"] > 0
    shown = server.ask("GET", f"{chat}/conversation/{kept}")[1]
    assert [one["role"] for one in shown["messages"]] == ["user", "assistant"] * 2
    assert shown["messages"][1]["content"] == first["response"]
    assert server.ask("DELETE", f"{chat}/conversation/{kept}")[0] == 200
    assert server.ask("GET", f"{chat}/conversation/{kept}")[0] == 404
