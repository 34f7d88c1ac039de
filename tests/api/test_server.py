"""A server process without a model: signals, deadlines, slow readers, and readers that leave."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import fake_server
from api.live_server import SOURCE, LiveServer, free_port, read_all, request_bytes, running_server, wait_for
from llm_local.cli.main import main
from llm_local.errors import HubUnavailable
from llm_local.terminal.exit_codes import exit_code

SCRIPT = Path(fake_server.__file__)


def open_replies(server: LiveServer) -> int:
    return int(server.ask("GET", "/metrics")[1].split()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with running_server(tmp_path_factory.mktemp("fake_server"), script=SCRIPT) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "prompt"), [("/generate", "silent"), ("/generate/stream", "slow"), ("/generate", "slow")]
)
def test_a_reader_that_leaves_ends_its_reply(server: LiveServer, path: str, prompt: str) -> None:
    with server.connect() as connection:
        connection.sendall(request_bytes("POST", path, {"prompt": prompt}))
        wait_for(lambda: open_replies(server) == 1)
    wait_for(lambda: open_replies(server) == 0, 5)
    wait_for(lambda: any(one.get("status") == 499 for one in server.records()))


def test_a_silent_stream_is_kept_alive(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(request_bytes("POST", "/generate/stream", {"prompt": "silent"}))
        found = b""
        while found.count(b": ping\n\n") < 2:
            found += connection.recv(4096)
    assert found.index(b"event: begin") < found.index(b": ping")


def test_a_reader_that_takes_nothing_is_cut_off_and_costs_the_others_nothing(server: LiveServer) -> None:
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", server.port))
    with stuck:
        stuck.sendall(request_bytes("POST", "/generate/stream", {"prompt": "flood"}))
        wait_for(lambda: open_replies(server) == 1)
        assert server.ask("POST", "/generate", {"prompt": "x"})[0] == 200
        wait_for(lambda: open_replies(server) == 0, fake_server.SEND_S + 5)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET /health HT",
        b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
    ],
)
def test_a_request_that_does_not_go_on_is_cut_off(server: LiveServer, raw: bytes) -> None:
    began = time.monotonic()
    with server.connect(5) as connection, contextlib.suppress(ConnectionResetError):
        connection.sendall(raw)
        read_all(connection)  # to the end: a connection that stays open runs into the timeout
    assert 0.3 < time.monotonic() - began < 5


def test_a_drip_of_a_head_does_not_prolong_it(server: LiveServer) -> None:
    began = time.monotonic()
    with server.connect() as connection, pytest.raises(OSError):
        for letter in "GET /health HTTP/1.1\r\n" * 10:
            connection.sendall(letter.encode())
            time.sleep(0.05)
    assert time.monotonic() - began < 8  # dripping all of it would take ten


def test_a_termination_lets_answers_finish_and_says_so_to_those_that_do_not(tmp_path: Path) -> None:
    with running_server(tmp_path, script=SCRIPT, GRACE_S="1") as server, contextlib.ExitStack() as stack:
        streamed, whole, idle = (stack.enter_context(server.connect()) for _ in range(3))
        streamed.sendall(request_bytes("POST", "/generate/stream", {"prompt": "slow"}))
        whole.sendall(request_bytes("POST", "/generate", {"prompt": "silent"}))
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: open_replies(server) == 2)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not _listens(server.port))
        tail, refused = read_all(streamed), read_all(whole)
        assert server.process.wait(10) == 0
        assert 0.8 < time.monotonic() - began < 10
        assert (
            tail.count(b"event: delta") > 20
            and b'event: error\ndata: {"error":{"kind":"shutting_down"' in tail
        )
        assert tail.endswith(b"0\r\n\r\n")
        assert (
            refused.startswith(b"HTTP/1.1 503") and b"shutting_down" in refused and b"retry-after" in refused
        )
        for connection in (streamed, whole, idle):
            connection.close()
    assert not list((server.home / "llm-local" / "servers").iterdir())


def test_a_request_that_was_begun_is_still_answered(tmp_path: Path) -> None:
    with running_server(tmp_path, script=SCRIPT, GRACE_S="5") as server, server.connect() as late:
        raw = request_bytes("POST", "/generate", {"prompt": "x"})
        late.sendall(raw[:-3])
        wait_for(lambda: server.ask("GET", "/health")[0] == 200)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not _listens(server.port))
        late.sendall(raw[-3:])
        assert read_all(late).startswith(b"HTTP/1.1 200")
        assert server.process.wait(5) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: int, code: int) -> None:
    with running_server(tmp_path, script=SCRIPT) as server, server.connect() as connection:
        connection.sendall(request_bytes("POST", "/generate/stream", {"prompt": "slow"}))
        wait_for(lambda: open_replies(server) == 1)
        server.process.send_signal(number)
        time.sleep(0.3)
        assert server.process.poll() is None
        began = time.monotonic()
        assert server.stop(number) == code
        assert time.monotonic() - began < 5.0  # the grace is 30


def test_ctrl_c_is_130_and_an_idle_server_ends_at_once(tmp_path: Path) -> None:
    with running_server(tmp_path, script=SCRIPT) as server:
        assert server.stop(signal.SIGINT, 3.0) == 130


def test_a_port_that_is_taken_is_said_in_one_line(server: LiveServer, tmp_path: Path) -> None:
    with running_server(tmp_path, "--port", str(server.port), script=SCRIPT, ready=False) as second:
        assert second.process.wait(20) == 1
        assert f"Port {server.port} of 127.0.0.1 cannot be listened on" in second.log.read_text()


def test_others_need_a_key_or_a_clear_word(tmp_path: Path) -> None:
    with running_server(tmp_path, "--host", "0.0.0.0", script=SCRIPT, ready=False) as refused:
        assert refused.process.wait(20) == 2 and "--insecure-no-auth" in refused.log.read_text()


def test_with_a_key_others_may_come_and_a_second_port_speaks_to_ollamas_programs(tmp_path: Path) -> None:
    key, other = "canary-key-123456", free_port()
    with running_server(
        tmp_path, "--host", "0.0.0.0", "--ollama-port", str(other), script=SCRIPT, API_KEYS=key
    ) as server:
        assert server.ask("GET", "/models")[0] == 401
        assert server.ask("GET", "/models", headers={"x-api-key": key})[0] == 200
        assert server.ask("GET", "/models", headers={"x-api-key": key, "host": "evil.example"})[0] == 421
        assert key not in server.log.read_text()
        assert key.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
        second = LiveServer(other, server.process, server.log, server.home)
        assert server.ask("GET", "/", headers={"x-api-key": key})[1]["name"] == "llm-local"
        assert second.ask("GET", "/", headers={"x-api-key": key}) == (200, b"Ollama is running")
        assert second.ask("HEAD", "/")[0] == 401


def test_it_can_run_in_the_background(tmp_path: Path) -> None:
    """The real program, which loads its model only later; ps shows it, and stop ends it."""
    port, log = free_port(), tmp_path / "log"
    environment = {**os.environ, "MODEL_ID": "starter", "OFFLINE": "1", "LLM_LOCAL_HOME": str(tmp_path / "h")}
    old = os.umask(0)
    try:
        started = _llm_local(environment, "serve", "--detach", "--port", str(port), "--log-file", str(log))
    finally:
        os.umask(old)
    try:
        assert (started.returncode, started.stdout) == (0, f"http://127.0.0.1:{port}\n")
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert str(port) in _llm_local(environment, "ps").stdout
    finally:
        stopped = _llm_local(environment, "stop", str(port), "--timeout", "60")
    assert f"stopped the server on port {port}" in stopped.stdout
    assert not _listens(port)


def test_a_model_that_cannot_be_had_is_said_by_who_detaches(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFLINE", "1")
    port, log = free_port(), tmp_path / "log"
    words = ["--detach", "--port", str(port), "--log-file", str(log), "--model", "no/such"]
    assert main(["serve", *words]) == exit_code(HubUnavailable(""))
    said = capfd.readouterr()
    assert said.out == "" and "no/such" in said.err
    assert not _listens(port)


def test_what_is_wrong_with_a_detached_server_is_said_at_once(
    server: LiveServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_ID", "starter")
    assert main(["serve", "--detach", "--port", str(server.port)]) == 1
    assert "cannot be listened on" in capfd.readouterr().err
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert main(["serve", "--detach", "--log-file", str(tmp_path / "link")]) == 6
    assert not (tmp_path / "target").exists()
    for words in (
        ["--port", "99999"],
        ["--log-file", "x"],
        ["--api-key", "a b"],
        ["--host", "0.0.0.0", "--port", "70000"],
    ):
        assert main(["serve", *words]) == 2


def _llm_local(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llm_local.cli.main", *words]
    return subprocess.run(
        command,
        env={**environment, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
