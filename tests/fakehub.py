"""A model hub on loopback that does what a test tells it: a few models, and faults to happen in order."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from llm_local.store import retries

# What a hostile hub may call a file.
EVIL_NAMES = [
    "../x.json", "../../x.json", "/etc/x.json", "a/../../x.json", "a//x.json", "./x.json", "..", ".", "", "a/",
    "..\\x.json", "a\\..\\x.json", "C:\\x.json", "C:x.json", "\\\\host\\x.json", "x.json\x00", "\x00", "x\n.json",
    "%2e%2e/x.json", "x%00.json", "a/%2e%2e/x.json", "CON", "con.json", "a/NUL.json", "COM1", "lpt9.txt",
    "x.json.", "x.json ", "a./x.json", "\u202egnosj.x", "x\u200b.json", "x\ud800.json", "é" * 200, "x" * 300,
    "a?.json", "a*.json", "a|b.json", 'a"b.json', "<a>.json", "/".join(["d"] * 3000),
]  # fmt: skip

Handler = BaseHTTPRequestHandler
Fault = Callable[["Answer"], None]


@dataclass
class Repo:
    """One model: its files, and where its branch stands."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    with_digests: bool = True
    extra_names: list[str] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Answer:
    """One answer in the making; a fault changes it or sends it itself."""

    handler: Handler
    status: int
    headers: dict[str, str]
    body: bytes
    whole: bytes
    stop: threading.Event
    bytes_per_s: float | None = None
    sent: bool = False
    num_sent: int = 0

    def send(self, *, cut: int | None = None, reset: bool = False) -> None:
        """Send it; with `cut`, only so many bytes of the body, and then an end or a reset of the connection."""
        if self.sent:
            return
        self.sent = True
        self.handler.send_response(self.status)
        self.headers.setdefault("Content-Length", str(len(self.body)))
        for name, value in self.headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self._write(self.body if cut is None else self.body[:cut])
        if cut is not None:
            self.handler.wfile.flush()
            if reset:
                self.handler.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self.handler.close_connection = True

    def _write(self, body: bytes) -> None:
        """Send it in pieces, at the speed of the line, as long as somebody reads."""
        piece = len(body) or 1 if self.bytes_per_s is None else 64 << 10
        for begin in range(0, len(body), piece):
            self.handler.wfile.write(body[begin : begin + piece])
            self.num_sent += len(body[begin : begin + piece])
            if self.bytes_per_s is not None and self.stop.wait(piece / self.bytes_per_s):
                return


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> Fault:
    def fault(answer: Answer) -> None:
        answer.status, answer.headers, answer.body = code, dict(headers or {}), body

    return fault


def cut_after(count: int) -> Fault:
    """The connection ends within the body; what was sent arrives."""
    return lambda answer: answer.send(cut=count)


def reset_after(count: int) -> Fault:
    """The connection is reset within the body; the system may drop what has not been read yet."""
    return lambda answer: answer.send(cut=count, reset=True)


def hang(answer: Answer) -> None:
    answer.stop.wait(30)
    answer.sent = True


def ignore_range(answer: Answer) -> None:
    answer.status, answer.body = 200, answer.whole
    answer.headers.pop("Content-Range", None)


def short(answer: Answer) -> None:
    """Fewer bytes than there are, and a Content-Length that agrees with the lie."""
    answer.body = answer.body[: len(answer.body) // 2]


def too_long(answer: Answer) -> None:
    answer.body += b"and more"


def zipped(answer: Answer) -> None:
    """The contents packed on the way, though nobody asked for that."""
    answer.body = gzip.compress(answer.body)
    answer.headers["Content-Encoding"] = "gzip"


def drip(answer: Answer) -> None:
    """A byte now and then: the connection lives, and nothing comes."""
    answer.sent = True
    answer.handler.send_response(answer.status)
    for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
        answer.handler.send_header(name, value)
    answer.handler.end_headers()
    for byte in answer.body:
        answer.handler.wfile.write(bytes([byte]))
        if answer.stop.wait(0.02):
            return


def flip(position: int) -> Fault:
    def fault(answer: Answer) -> None:
        body = bytearray(answer.body)
        body[position] ^= 1
        answer.body = bytes(body)

    return fault


def web_page(answer: Answer) -> None:
    answer.status, answer.body = 200, b"<!DOCTYPE html><html>Please log in</html>"
    answer.headers = {"Content-Type": "text/html; charset=utf-8"}


def wrong_place(answer: Answer) -> None:
    """Another part of the file than was asked for."""
    if "Content-Range" in answer.headers:
        answer.body = answer.whole[: len(answer.body)]
        answer.headers["Content-Range"] = f"bytes 0-{len(answer.body) - 1}/{len(answer.whole)}"


def redirect(url: str) -> Fault:
    return status(302, {"Location": url}, b"")


class FakeHub:
    """Serves `repos` at `url`. `faults["config.json"]` (or "api") are used up one per request for that file."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.requests: list[Request] = []
        self.bytes_per_s: float | None = None
        self.sent_bytes = 0
        self.pages: list[bytes] = []
        self._counting = threading.Lock()
        self.stop = threading.Event()
        hub = self

        class HubHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                hub._handle(self)

            def do_HEAD(self) -> None:
                hub._handle(self)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address) -> None:
                pass  # a client that went away is part of the tests

        self._server = Server(("127.0.0.1", 0), HubHandler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def add(self, ref: str, files: Mapping[str, bytes], **details: object) -> Repo:
        self.repos[ref] = Repo(dict(files), **details)
        return self.repos[ref]

    def asked(self, part: str) -> list[Request]:
        return [request for request in self.requests if part in request.path]

    def close(self) -> None:
        self.stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handle(self, handler: Handler) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.requests.append(
            Request(handler.command, handler.path, {k.lower(): v for k, v in handler.headers.items()})
        )
        key, answer = self._answer(handler, path)
        try:
            if self.faults[key]:
                self.faults[key].popleft()(answer)
            answer.send()
        finally:  # somebody who was killed does not read to the end
            with self._counting:
                self.sent_bytes += answer.num_sent

    def _answer(self, handler: Handler, path: str) -> tuple[str, Answer]:
        def make(code: int, headers: dict[str, str], body: bytes, whole: bytes = b"") -> Answer:
            return Answer(handler, code, headers, body, whole, self.stop, self.bytes_per_s)

        if path == "/api/models":
            return "search", make(*self._listed(handler))
        for ref, repo in self.repos.items():
            if path.startswith(f"/api/models/{ref}/revision/"):
                if path.rpartition("/revision/")[2] not in ("main", repo.commit):
                    return "api", make(404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
                return "api", make(200, {"Content-Type": "application/json"}, _description(ref, repo))
            prefix = f"/{ref}/resolve/{repo.commit}/"
            if path.startswith(prefix):
                name = path.removeprefix(prefix)
                if name not in repo.files:
                    return name, make(404, {"X-Error-Code": "EntryNotFound"}, b"")
                return name, make(*_content(repo.files[name], handler.headers))
        if path.startswith("/plain/"):  # where redirects of files lead: /plain/<ref>/<name>
            name = path.rpartition("/")[2]
            repo = next(iter(self.repos.values()))
            return f"plain {name}", make(*_content(repo.files[name], handler.headers))
        return "api", make(404, {"X-Error-Code": "RepoNotFound"}, b'{"error":"Repository not found"}')

    def _listed(self, handler: Handler) -> tuple[int, dict[str, str], bytes]:
        """One of `pages`, with a link to the next."""
        number = int(parse_qs(urlsplit(handler.path).query).get("cursor", ["0"])[0])
        headers = {"Content-Type": "application/json"}
        if number + 1 < len(self.pages):
            headers["Link"] = f'<{self.url}/api/models?cursor={number + 1}>; rel="next"'
        return 200, headers, self.pages[number] if self.pages else b"[]"


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    try:
        yield hub
    finally:
        hub.close()


@contextmanager
def chosen_hub(monkeypatch: pytest.MonkeyPatch, ref: str, files: Mapping[str, bytes]) -> Iterator[FakeHub]:
    """A running hub with one model, and an environment that points at it."""
    with running_hub() as hub:
        hub.add(ref, files)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def without_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No retry waits from now on; the seconds that would have passed are kept."""
    slept: list[float] = []
    monkeypatch.setitem(retries.Retries.__init__.__kwdefaults__, "sleep", slept.append)
    return slept


def git_digest(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _description(ref: str, repo: Repo) -> bytes:
    siblings: list[dict[str, object]] = [{"rfilename": name} for name in repo.extra_names]
    for name, data in repo.files.items():
        entry: dict[str, object] = {"rfilename": name}
        if repo.with_digests:
            entry |= {"size": len(data), "blobId": git_digest(data)}
            if name.endswith(".safetensors"):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        siblings.append(entry)
    told = {"id": ref, "sha": repo.commit, "gated": False, "siblings": siblings, **repo.details}
    return json.dumps(told).encode()


def _content(data: bytes, asked: Mapping[str, str]) -> tuple[int, dict[str, str], bytes, bytes]:
    etag, wanted = f'"{hashlib.sha256(data).hexdigest()}"', asked.get("Range")
    headers = {"Content-Type": "application/octet-stream", "ETag": etag}
    if wanted is None or asked.get("If-Range", etag) != etag:
        return 200, headers, data, data
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
    if start >= len(data):
        return 416, {**headers, "Content-Range": f"bytes */{len(data)}"}, b"", data
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return 206, headers, data[start:end], data


SLOW_MODEL = "org/model"
SLOW_WEIGHTS = "model.safetensors"


@contextmanager
def slow_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that the settings name, with `SLOW_MODEL` and a line slow enough for a download to be followed."""
    with running_hub() as hub:
        header = b'{"w":{"dtype":"F32","shape":[500000],"data_offsets":[0,2000000]}}'
        files = {
            "config.json": b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
            "tokenizer.json": b"{}",
            SLOW_WEIGHTS: len(header).to_bytes(8, "little") + header + bytes(2_000_000),
        }
        hub.add(SLOW_MODEL, files)
        hub.bytes_per_s = 8_000_000
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub
