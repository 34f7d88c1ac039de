"""The real server with the starter model: what is on the wire, in the log, and in the engine when readers leave."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import pytest

from api.live_server import LiveServer, read_all, request_bytes, wait_for

HELLO = {"messages": [{"role": "user", "content": "Hello!"}], "max_new_tokens": 12, "temperature": 0}
# A reply that cannot end early: the model would rather stop.
LONG = {"prompt": "canary", "max_new_tokens": 400, "constraint": {"kind": "regex", "value": "(a|b|c){2000}"}}


def slots_in_use(server: LiveServer) -> float:
    """How many requests the model answers just now."""
    text = server.ask("GET", "/metrics")[1].decode()
    lines = [line for line in text.splitlines() if line.startswith("llm_local_slots_in_use")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def statuses(server: LiveServer) -> list[int]:
    return [record["status"] for record in server.records() if record["message"] == "request"]


def test_curl_without_a_content_type_works(live_server: LiveServer) -> None:
    status, answer = live_server.ask("POST", "/chat", HELLO)
    assert status == 200 and answer["usage"]["completion_tokens"] <= 12 and answer["speed"].endswith(".")


def test_a_stream_is_framed_as_it_should_be(live_server: LiveServer) -> None:
    with live_server.connect() as connection:
        connection.sendall(request_bytes("POST", "/chat/stream", HELLO, extra="Connection: close\r\n"))
        head, _, data = read_all(connection).partition(b"\r\n\r\n")
    assert b"text/event-stream" in head and b"cache-control: no-cache" in head.lower()
    assert b"x-accel-buffering: no" in head.lower() and b"\r\n\r\n" not in data.replace(b"\r\n0\r\n\r\n", b"")
    whole = live_server.ask("POST", "/chat", HELLO)[1]
    texts = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: ")]
    assert "".join(one.get("text", "") for one in texts) == whole["text"]
    assert texts[-1]["finish_reason"] == whole["finish_reason"] and texts[-1]["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("path", ["/generate", "/generate/stream"])
def test_readers_that_leave_free_the_model(live_server: LiveServer, path: str) -> None:
    before = statuses(live_server).count(499)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(live_server.connect()) for _ in range(3)]
        for connection in connections:
            connection.sendall(request_bytes("POST", path, LONG))
        wait_for(lambda: slots_in_use(live_server) == 3)
    wait_for(lambda: slots_in_use(live_server) == 0, 10)
    wait_for(lambda: statuses(live_server).count(499) == before + 3)


@pytest.mark.parametrize("host", ["x/health?", "x/#", "a@b", "localhost\x01", "evil.example", "x" * 8000])
def test_odd_hosts_open_nothing(live_server: LiveServer, host: str) -> None:
    with live_server.connect() as connection:
        connection.sendall(request_bytes("GET", "/models", host=host, extra="Connection: close\r\n"))
        assert read_all(connection).split(b" ", 2)[1] in (b"400", b"421")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /models HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /models HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", b"400"),
        (b"secret-canary\r\n\r\n", b"400"),
        (b"GET /models HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 70_000, b"431"),
        (
            b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"400",
        ),
    ],
)
def test_what_is_no_request_is_answered_without_an_echo(
    live_server: LiveServer, raw: bytes, status: bytes
) -> None:
    with live_server.connect() as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer.split(b" ", 2)[1] == status
    assert b"canary" not in answer and b"yyyy" not in answer
    json.loads(answer.partition(b"\r\n\r\n")[2])


def test_every_line_of_the_log_is_one_request_and_harmless(live_server: LiveServer) -> None:
    before = sum(record["message"] == "request" for record in live_server.records())
    for number in range(10):
        extra = f"User-Agent: evil\x1b[31m{number}\r\nX-Request-ID: label-{number}\r\nConnection: close\r\n"
        with live_server.connect() as connection:
            connection.sendall(
                request_bytes("GET", f"/nope%0d%0a%1b%e2%80%a8{number}?prompt=canary", extra=extra)
            )
            read_all(connection)
    wait_for(lambda: sum(one["message"] == "request" for one in live_server.records()) >= before + 10)
    text = live_server.log.read_text()
    assert not any(ord(letter) < 32 and letter != "\n" for letter in text) and "\u2028" not in text
    assert "canary" not in text and "Hello" not in text
    labels = [record.get("client_request_id") for record in live_server.records()]
    assert [labels.count(f"label-{number}") for number in range(10)] == [1] * 10


def test_the_loop_answers_while_a_megabyte_is_tokenized(live_server: LiveServer) -> None:
    worker = threading.Thread(target=live_server.ask, args=("POST", "/tokenize", {"text": "word " * 200_000}))
    worker.start()
    answered = 0
    while worker.is_alive():
        assert live_server.ask("GET", "/health")[0] == 200
        answered += 1
    worker.join()
    assert answered > 5  # a loop that is blocked answers once, when it is over
