"""Clients of servers: what they understand, what becomes of servers, and what a comparison says of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llm_local.bench.peers.server_process import ServerProcess, free_port
from llm_local.bench.serve import IN_PROCESS, ServeScenario, random_text
from llm_local.bench.sse_client import Answer, Answers, complete
from llm_local.bench.subjects import Subject
from llm_local.errors import ContextLengthExceeded, EngineError
from llm_local.specs import EngineOptions, ModelInfo

INFO = ModelInfo("tiny", "", "llama", 3, 6, "float32", "cpu", 100, 50, False)
SUBJECT = Subject(None, INFO, EngineOptions(), {})
USAGE = {"prompt_tokens": 5, "completion_tokens": 3}


def event(text: str, usage: dict[str, int] | None = None) -> bytes:
    chunk: dict[str, Any] = {"choices": [{"text": text}], "usage": usage}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Handler(BaseHTTPRequestHandler):
    """Answers with the pieces that the prompt names, in chunks of HTTP or without any."""

    protocol_version = "HTTP/1.1"
    scripts: dict[str, Sequence[bytes]] = {}
    status: dict[str, int] = {}
    asked: list[tuple[str | None, dict[str, Any]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.headers["authorization"], asked))
        name = asked["prompt"]
        plain = name.startswith("plain")
        self.send_response(self.status.get(name, 200))
        self.send_header("Connection", "close")
        if not plain:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.scripts[name]:
            time.sleep(0.01)
            self.wfile.write(piece if plain else f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if not plain and not name.startswith("cut"):
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Quiet(ThreadingHTTPServer):
    """Clients leave as soon as one of them has failed."""

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(scripts: dict[str, Sequence[bytes]], **status: int) -> Iterator[int]:
    Handler.scripts, Handler.status, Handler.asked = scripts, status, []
    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


WHOLE = (event("a"), b": ping\n\n", event(""), event("b"), event("", USAGE), b"data: [DONE]\n\n")


def test_pieces_of_text_and_the_counts_of_the_server_are_understood() -> None:
    stream = b"".join(WHOLE)
    cut_anywhere = [stream[start : start + 7] for start in range(0, len(stream), 7)]
    scripts = {"whole": WHOLE, "plain": WHOLE, "cut_anywhere": cut_anywhere}
    with served({**scripts, "anywhere": cut_anywhere}) as port:
        bodies = [{"prompt": name} for name in ("whole", "plain", "anywhere")]
        answers = complete(port, bodies, {"authorization": "Bearer k"})
    assert sorted(key for key, _ in Handler.asked) == ["Bearer k"] * 3
    for one in answers.each:
        assert (one.text, one.prompt_tokens, one.completion_tokens) == ("ab", 5, 3)
        first, second = one.text_s
        assert 0 < first < second < one.end_s <= answers.seconds


@pytest.mark.parametrize(
    ("name", "script", "status", "said"),
    [
        ("busy", (b'{"error": "no room"}',), 503, "refused with 503: .*no room"),
        ("failed", (event("a"), b'data: {"error": {"message": "broken"}}\n\n'), 200, "failed: .*broken"),
        ("babble", (b"data: hello\n\n",), 200, "failed: hello"),
        ("cut", (event("a"),), 200, "broke off, or speaks no HTTP"),
        ("short", (event("a"), b"data: [DONE]\n\n"), 200, "did not say how many tokens"),
    ],
)
def test_an_answer_that_is_none_is_an_error(
    name: str, script: Sequence[bytes], status: int, said: str
) -> None:
    with (
        served({name: script, "whole": WHOLE}, **{name: status}) as port,
        pytest.raises(EngineError, match=said),
    ):
        complete(port, [{"prompt": "whole"}, {"prompt": name}], {})


def test_nobody_at_the_port_is_an_error() -> None:
    with pytest.raises(EngineError, match="takes no connection"):
        complete(free_port(), [{"prompt": "x"}], {})


# --- processes ---

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
    def log_message(self, *_): pass
if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("error: no port")
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "fake_server.py").write_text(SERVER)
    return {"PYTHONPATH": str(tmp_path)}


def test_a_server_is_waited_for_and_ended(environ: dict[str, str]) -> None:
    port = free_port()
    process = ServerProcess("fake", "fake_server", [str(port)], environ)
    try:
        process.wait_ready(port, "/ready")
    finally:
        process.close()
    process.close()  # harmless when repeated
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_server_that_does_not_start_is_named_with_its_last_words(environ: dict[str, str]) -> None:
    process = ServerProcess("fake", "fake_server", [], environ)
    try:
        with pytest.raises(EngineError, match="fake ended with status 1: error: no port"):
            process.wait_ready(free_port(), "/ready")
    finally:
        process.close()


def test_a_server_ends_with_whoever_started_it(environ: dict[str, str]) -> None:
    starter = (
        "import os, sys, time\nfrom llm_local.bench.peers.server_process import ServerProcess, free_port\n"
        f"port = free_port()\nprocess = ServerProcess('fake', 'fake_server', [str(port)], {environ!r})\n"
        "process.wait_ready(port, '/ready')\nprint(process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while time.monotonic() < end and _runs(pid):
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# --- the comparison ---


class FakeServer:
    """Gives each client a token every `step_s` seconds, all side by side."""

    facts = {"version": "1"}

    def __init__(self, name: str, step_s: float, seen: list[tuple[str, Sequence[str], int]]) -> None:
        self.name, self.step_s, self.seen = name, step_s, seen

    def answer(self, prompts: Sequence[str], new_tokens: int) -> Answers:
        self.seen.append((self.name, prompts, new_tokens))
        moments = tuple(self.step_s * (number + 1) for number in range(new_tokens))
        return Answers(tuple(Answer(moments, moments[-1], 7, new_tokens) for _ in prompts))

    def count(self, text: str) -> int:
        return 2 * len(text.split())

    def peak_rss_bytes(self) -> int:
        return 1000


def scenario(seen: list[Any], *, prompt_tokens: int = 20) -> ServeScenario:
    steps = {"llm-local": 0.5, IN_PROCESS: 0.4, "other": 1.0}
    servers = tuple(FakeServer(name, step_s, seen) for name, step_s in steps.items())
    return ServeScenario(
        subject=SUBJECT, rounds_wanted=2, probe=lambda: 5000.0, servers=servers, clients=(1, 2),
        prompt_tokens=prompt_tokens, new_tokens=4,
    )  # fmt: skip


def test_servers_take_turns_on_the_same_prompts() -> None:
    seen: list[tuple[str, Sequence[str], int]] = []
    one = scenario(seen)
    rounds = list(one.rounds())
    assert [name for name, *_ in seen[:3]] == ["llm-local", IN_PROCESS, "other"]  # what does not count
    asked = [(name, len(prompts)) for name, prompts, _ in seen[3:]]
    ours, within, other = "llm-local", IN_PROCESS, "other"
    assert asked == [
        (ours, 1), (within, 1), (other, 1), (ours, 2), (within, 2), (other, 2),
        (within, 1), (ours, 1), (other, 1), (within, 2), (ours, 2), (other, 2),
    ]  # fmt: skip
    prompts = [text for _, texts, _ in seen[3:] for text in texts]
    assert len(set(prompts)) == len(prompts) / 3 == 6
    assert all(len(text.split()) == 10 for text in prompts)  # two tokens a word
    assert [(one.index, one.what, one.figures["clients"]) for one in rounds[:2]] == [
        (0, ours, 1),
        (0, within, 1),
    ]
    assert one.settings == {
        "clients": (1, 2), "context": 20, "new_tokens": 4, "rounds": 2, "against": ("other",),
    }  # fmt: skip
    assert one.peers == {"other": {"version": "1"}}


def test_what_servers_give_and_what_http_takes() -> None:
    one = scenario([])
    rounds = list(one.rounds())
    summary = one.summarize(rounds)
    ours, within, other = summary.rows[3:]
    # two clients with four tokens each, in two seconds
    assert (ours["tokens_per_s"], within["tokens_per_s"], other["tokens_per_s"]) == (4.0, 5.0, 2.0)
    assert (ours["ttft_p50_s"], ours["itl_p50_s"], ours["itl_p95_s"]) == (0.5, 0.5, 0.5)
    assert ("ratio" in ours, within["ratio"], other["ratio"]) == (False, 0.8, 2.0)
    assert (ours["prompt_tokens"], ours["completion_tokens"], ours["peak_rss_bytes"]) == (7, 4, 1000)
    assert summary.verdict == (
        "One client gets 2.0 tokens/s from llm-local: 2.00 times as many as from other; "
        "HTTP takes 20.0 % of what there is without it. "
        "2 clients get 4.0 tokens/s from llm-local: 2.00 times as many as from other; "
        "HTTP takes 20.0 % of what there is without it."
    )
    assert one.summarize(rounds[:1]).verdict == "One client gets 2.0 tokens/s from llm-local."
    assert one.summarize([]).verdict == "Nothing was measured."


def test_what_does_not_fit_the_window_is_refused_before_anything_is_asked() -> None:
    seen: list[Any] = []
    with pytest.raises(ContextLengthExceeded):
        next(scenario(seen, prompt_tokens=98).rounds())
    assert not seen


def test_random_texts_are_the_same_for_a_seed() -> None:
    assert random_text(30, "a") == random_text(30, "a") != random_text(30, "b")
    assert len(random_text(30, "a").split()) == 30


def test_our_server_from_the_command_line() -> None:
    words = [
        "serve",
        "--shape",
        "starter",
        "--context",
        "30",
        "--new-tokens",
        "5",
        "--streams",
        "2",
        "--kernels",
        "off",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "llm_local.cli.main", "bench", *words, "--rounds", "1", "--json"],
        capture_output=True, text=True, check=False, timeout=120, cwd=Path.home(),
        env={**os.environ, "API_KEYS": "of-the-user-and-long-enough"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ours, within = report["rounds"]
    assert (ours["what"], within["what"]) == ("llm-local", IN_PROCESS)
    for name in ("clients", "prompt_tokens", "completion_tokens"):
        assert ours["figures"][name] == within["figures"][name]
    assert 15 < ours["figures"]["prompt_tokens"] < 60
    assert min(ours["figures"]["tokens_per_s"], within["figures"]["tokens_per_s"]) > 0
    assert "HTTP takes" in report["verdict"]
