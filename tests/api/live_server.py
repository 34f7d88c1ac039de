"""One real server with the starter model for all tests of the API that need sockets, in a process of its own.

`live_server` is shared by every module under tests/api (conftest.py offers it) and ended with the session. Tests that
send signals or need other settings start one of their own with `running_server`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
START_S = 120.0


@dataclass
class LiveServer:
    """A server that runs. `base_url` has no slash at its end; `log` is where its lines go."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    home: Path

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout_s: float = 60.0) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and body of one request; JSON is parsed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, raw, dict(headers or {}))
            response = connection.getresponse()
            data = response.read()
            is_json = response.getheader("content-type", "").startswith("application/json")
            return response.status, json.loads(data) if is_json and data else data
        finally:
            connection.close()

    def records(self) -> list[dict[str, Any]]:
        """What it has logged: every line is one JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_until_ready(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/ready")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the server did not become ready:\n{self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM, patience_s: float = 30.0) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(patience_s)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_server(
    folder: Path, *words: str, ready: bool = True, script: Path | None = None, **settings: str
) -> Iterator[LiveServer]:
    """A server of its own in `folder`, with settings as environment variables; killed at the end if it still runs.

    `script` is run instead of the real server: `fake_server.py`, which needs no model and starts in a second.
    """
    port, log, home = free_port(), folder / "server.log", folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    kept = {
        name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "VIRTUAL_ENV") if name in os.environ
    }
    environment = {
        **kept,
        "HOME": str(home),
        "LLM_LOCAL_HOME": str(home / "llm-local"),
        "HF_HOME": str(home / "huggingface"),
        "OFFLINE": "1",
        "MODEL_ID": "starter",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(SOURCE),
        **settings,
    }
    program = ["-m", "llm_local.api_server"] if script is None else [str(script)]
    command = [sys.executable, *program, "--port", str(port), *words]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, cwd=folder
        )
    server = LiveServer(port, process, log, home)
    try:
        if ready:
            server.wait_until_ready()
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The server that all modules share. Leave it as it was: no keys, the starter model loaded."""
    with running_server(tmp_path_factory.mktemp("live_server")) as server:
        yield server


def request_bytes(
    method: str, path: str, body: object = None, host: str = "localhost", extra: str = ""
) -> bytes:
    """A request as it goes over a socket; `extra` are whole header lines."""
    raw = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(raw)}\r\n{extra}\r\n"
    return head.encode() + raw


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    while data := connection.recv(65536):
        found += data
    return found


def wait_for(condition: Callable[[], bool], patience_s: float = 20.0) -> float:
    """Seconds until it came true."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience_s, "it did not come true"
        time.sleep(0.01)
    return time.monotonic() - began
