"""Every request that leaves this machine is one line in the log, with method, host and path, and without a secret."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest

from fakehub import FakeHub, chosen_hub, redirect, status, without_waiting
from llm_local.errors import HubUnavailable
from llm_local.logs import configure_logging
from llm_local.store.endpoint import loggable
from llm_local.store.hub import HubClient, probe
from llm_local.store.pulling import pull

REF = "org/model"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "model.safetensors": b"w" * 1000,
}
TOKEN = "hf_abcdefghijklmnop"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    without_waiting(monkeypatch)
    with chosen_hub(monkeypatch, REF, FILES) as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logging("info", stream=stream)
    yield stream
    configure_logging("warning")


def outbound(log: io.StringIO) -> list[str]:
    return [line.partition("outbound: ")[2] for line in log.getvalue().splitlines() if "outbound: " in line]


def test_what_a_hub_was_asked_is_what_the_log_says(hub: FakeHub, log: io.StringIO) -> None:
    hub.faults["config.json"].append(status(503))  # and a second try is a second line
    pull(REF)
    asked = [f"{one.method} {hub.url}{one.path.partition('?')[0]}" for one in hub.requests]
    assert len(asked) > 4
    requests = [line for line in outbound(log) if not line.startswith("connect")]
    assert sorted(requests) == sorted(asked)
    assert TOKEN not in log.getvalue()


def test_a_redirect_is_a_line_of_its_own_without_its_keys(hub: FakeHub, log: io.StringIO) -> None:
    port = hub.url.rpartition(":")[2]
    target = f"http://user:word@127.0.0.1:{port}/plain/org/config.json?X-Signature=s3cr3t#part"
    hub.faults["config.json"].append(redirect(target))
    with HubClient(hub.url, None) as client:
        url = f"{hub.url}/{REF}/resolve/{'a' * 40}/config.json?token=s3cr3t"
        with client.send("GET", url) as answer:
            assert b"".join(answer.chunks) == FILES["config.json"]
    assert outbound(log) == [
        f"GET {hub.url}/{REF}/resolve/{'a' * 40}/config.json",
        f"GET {hub.url}/plain/org/config.json",
    ]
    for secret in ("s3cr3t", "user", "word", "part"):
        assert secret not in log.getvalue()


def test_looking_whether_somebody_answers_is_told_too(hub: FakeHub, log: io.StringIO) -> None:
    probe(hub.url)
    host, port = re.fullmatch(r"http://(.*):(\d+)", hub.url).groups()  # type: ignore[union-attr]
    assert outbound(log) == [f"connect to {host}:{port} and hang up"]


def test_without_a_request_there_is_no_line(hub: FakeHub, log: io.StringIO) -> None:
    pull(REF)
    before = len(outbound(log))
    hub.requests.clear()
    # Late: a model that is here is found without the hub.
    from llm_local.store.snapshots import find_local

    assert find_local(REF)
    assert (len(outbound(log)), hub.requests) == (before, [])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/b/c?d=e#f", "https://a.example/b/c"),
        ("https://u:p@A.example:443/b", "https://a.example/b"),
        ("http://a.example:81", "http://a.example:81"),
        ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]:8443/x"),
    ],
)
def test_what_may_be_written_down(url: str, shown: str) -> None:
    assert loggable(url) == shown


@pytest.mark.parametrize("url", ["ftp://a/b", "/etc/passwd", "https://a:port/"])
def test_what_is_no_address_is_not_asked(url: str) -> None:
    with pytest.raises(HubUnavailable):
        loggable(url)
