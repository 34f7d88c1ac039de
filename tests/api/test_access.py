"""Who may ask: keys on every route and path spelling, hosts, origins, rates, and what comes before a body is read."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from api.asgi import Client
from api.conftest import Make
from api.fake_service import FakeService
from llm_local.api.observe import ACCESS_LOG
from llm_local.store.keys import add_key, remove_key

USER, ADMIN = "user-key-1234567890", "admin-key-0987654321"
KEYS = f"user:{USER},admin:{ADMIN}"
PUBLIC = {"/health", "/live", "/ready"}
HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def routes(app: FastAPI | APIRouter, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every method and path of an application; parameters are filled in."""
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes(inner, prefix + route.include_context.prefix)
            continue
        assert isinstance(route, APIRoute), f"{route} is no path operation, so no dependency stands before it"
        for method in route.methods:
            yield method, prefix + re.sub(r"\{[^}]*\}", "x", route.path)


def spellings(path: str) -> list[str]:
    return [
        path, f"/{path}", f"{path}/", f"/.{path}", f"//x/..{path}", path.upper(), f"{path};x", f"{path}%2f",
        f"{path}%00", path.replace("/", "%2f"), f"/health/..{path}", f"{path}?api_key={USER}", f"{path}?key={ADMIN}",
    ]  # fmt: skip


def test_without_a_key_nothing_but_the_probes_answers(make: Make) -> None:
    client = make(keys=KEYS)
    wrong = [{}, bearer("wrong"), bearer(""), {"authorization": USER}, {"authorization": "Basic " + USER}]
    wrong += [{"x-api-key": "k\u00e9y\u2603"}, {"x-api-key": ""}, {"cookie": f"api_key={USER}"}]
    seen, bodies = 0, set()
    for method, path in dict.fromkeys(routes(client.app)):
        for spelling in spellings(path):
            for headers in wrong if spelling == path else wrong[:1]:
                answer = client.ask(method, spelling, b"{}", headers)
                if spelling.partition("?")[0] in PUBLIC:
                    continue
                seen += 1
                assert answer.status in (401, 404, 405), (method, spelling, headers)
                if answer.status == 401:
                    bodies.add(re.sub(rb"[0-9a-f]{32}", b"", answer.body))
                    assert answer.headers["www-authenticate"] == "Bearer"
    assert seen > 300
    assert len(bodies) == 1 or all(b"Incorrect API key provided" in body for body in bodies)


@pytest.mark.parametrize(
    "headers",
    [
        bearer(USER),
        {"authorization": f"bEaReR   {USER}"},
        {"x-api-key": USER},
        {"authorization": "Bearer dummy", "x-api-key": USER},
    ],
)
def test_a_right_key_is_taken_in_every_form(
    make: Make, service: FakeService, headers: dict[str, str]
) -> None:
    client = make(service, KEYS)
    assert client.ask("POST", "/chat", HELLO, headers).status == 200
    caller = service.works[0].caller
    assert not caller.is_admin and caller.owner not in ("local", USER) and len(caller.request_id) == 32


def test_a_user_changes_nothing_and_an_admin_does(make: Make, service: FakeService) -> None:
    client = make(service, KEYS)
    changes = [("POST", "/models/load", {"model": "fake"}), ("POST", "/models/unload", {"model": "fake"})]
    for method, path, body in [*changes, ("GET", "/metrics", b"")]:
        refused = client.ask(method, path, body, bearer(USER))
        assert (refused.status, refused.json()["error"]["kind"]) == (403, "forbidden")
        assert client.ask(method, path, body, bearer(ADMIN)).status == 200
    assert [call[0] for call in service.calls] == ["load", "unload"]
    for seconds in (0, -1, 60):
        kept = client.ask("POST", "/chat", {**HELLO, "keep_alive_s": seconds}, bearer(USER))
        assert kept.status == 403 and "keep_alive_s" in kept.json()["error"]["message"]
    urgent = client.ask("POST", "/chat", {**HELLO, "priority": 5}, bearer(USER))
    assert (
        urgent.status == 403
        and client.ask("POST", "/chat", {**HELLO, "priority": 5}, bearer(ADMIN)).status == 200
    )


def test_keys_that_come_and_go_hold_at_once(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "api_keys.json"
    client = make(path=path)
    assert client.ask("GET", "/models").status == 200
    key, kept = add_key("user", "laptop", path)
    assert client.ask("GET", "/models").status == 401
    assert client.ask("GET", "/models", headers=bearer(key)).status == 200
    remove_key(kept.id, path)
    assert client.ask("GET", "/models", headers=bearer(key)).status == 401
    path.unlink()
    assert client.ask("GET", "/models").status == 401  # what was closed does not open by a lost file


def test_a_caller_is_known_before_the_body_is_read(make: Make) -> None:
    client = make(keys=KEYS)
    big = b"x" * (1 << 20)
    assert client.ask("POST", "/chat", big).status == 401
    assert client.read == 0
    assert client.ask("POST", "/models/load", big, bearer(USER)).status == 403
    assert client.read == 0


def test_a_body_over_the_bound_is_not_read_on(make: Make) -> None:
    client = make()
    declared = client.ask("POST", "/chat", b"{}", {"content-length": str(1 << 30)})
    assert (declared.status, declared.json()["error"]["kind"], client.read) == (413, "body_too_large", 0)
    streamed = client.ask("POST", "/chat", b" " * (20 << 20))
    assert streamed.status == 413 and client.read < 17 << 20


def test_compressed_bodies_are_refused(client: Client) -> None:
    assert client.ask("POST", "/chat", b"\x1f\x8b", {"content-encoding": "gzip"}).status == 415


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1", "10.0.0.7", "a.localhost"]
)
def test_our_names_are_taken(client: Client, host: str) -> None:
    assert client.ask("GET", "/models", headers={"host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "metadata.internal"]
)
def test_other_names_are_refused_whatever_the_address(client: Client, host: str) -> None:
    for path in ("/models", "/health"):
        answer = client.ask("GET", path, headers={"host": host})
        assert (answer.status, answer.json()["error"]["kind"]) == (421, "misdirected_request")
        assert host not in answer.body.decode()


@pytest.mark.parametrize(
    "host", ["x/health?", "x/#", "a@b", "", "a b", "localhost\x01", "x" * 8192, "[::1", "l:99999999"]
)
def test_a_host_that_is_none_is_refused(client: Client, host: str) -> None:
    assert client.ask("GET", "/models", headers={"host": host}).status == 400


def test_one_host_is_needed_and_no_more(client: Client) -> None:
    two = [("host", "localhost"), ("host", "localhost")]
    assert client.ask("GET", "/models", headers=two).status == 400


def test_a_head_that_is_too_large_is_refused_though_it_came_at_once(client: Client) -> None:
    for target, headers in (
        ("/models?" + "q" * 70_000, {}),
        ("/" + "p" * 70_000, {}),
        ("/models", {f"x-{number}": "y" * 1000 for number in range(70)}),
    ):
        answer = client.ask("GET", target, headers=headers)
        assert answer.status == 431 and answer.json()["error"]["kind"] == "head_too_large"


def test_names_can_be_added(make: Make) -> None:
    client = make(FakeService(api_allowed_hosts="api.example.com, *.lan.example"))
    wanted = {"api.example.com": 200, "box.lan.example": 200, "lan.example": 421, "example.com": 421}
    assert {host: client.ask("GET", "/models", headers={"host": host}).status for host in wanted} == wanted


def test_pages_of_strangers_are_refused(client: Client, service: FakeService) -> None:
    evil = [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://evil.example", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
        [("origin", "http://localhost"), ("origin", "http://localhost")],
    ]
    for headers in evil:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
            given = [*(headers.items() if isinstance(headers, dict) else headers), ("content-type", kind)]
            answer = client.ask("POST", "/chat", HELLO, given)
            assert answer.status == 403 and "access-control-allow-origin" not in answer.headers
    image = client.ask("GET", "/chat/stream?message=x", headers={"sec-fetch-site": "cross-site"})
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert image.status == 403 and client.ask("GET", "/chat/stream?message=x", headers=link).status == 403
    assert client.ask("GET", "/docs", headers=link).status == 200
    for path in ("/chat/stream?message=x", "/generate/stream?prompt=x"):
        for origin in ("https://evil.example", "null"):  # of a browser that sends nothing else
            assert client.ask("GET", path, headers={"origin": origin}).status == 403
    assert service.works == []
    reading = client.ask("GET", "/models", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in reading.headers


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://127.0.0.1",
        "http://[::1]:5",
        "tauri://localhost",
        "vscode-webview://abc",
    ],
)
def test_pages_of_this_machine_may_read(client: Client, origin: str) -> None:
    answer = client.ask("POST", "/chat", HELLO, {"origin": origin, "sec-fetch-site": "cross-site"})
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer.headers and "Origin" in answer.headers["vary"]
    failed = client.ask("POST", "/chat", b"", {"origin": origin})
    assert failed.status == 400 and failed.headers["access-control-allow-origin"] == origin


def test_an_origin_can_be_allowed_by_setting(make: Make) -> None:
    client = make(FakeService(api_cors_origins="https://chat.example.com"))
    assert client.ask("POST", "/chat", HELLO, {"origin": "https://chat.example.com"}).status == 200
    assert client.ask("POST", "/chat", HELLO, {"origin": "https://chat.example.com.evil.io"}).status == 403


def test_the_page_of_the_server_itself_may_ask_by_any_of_its_names(client: Client) -> None:
    headers = {
        "host": "192.168.1.5:8000",
        "origin": "http://192.168.1.5:8000",
        "sec-fetch-site": "same-origin",
    }
    assert client.ask("POST", "/chat", HELLO, headers).status == 200


def test_a_preflight_needs_no_key_and_admits_what_it_asks_for(make: Make) -> None:
    client = make(keys=KEYS)
    asked = {
        "origin": "http://localhost:5173",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    answer = client.ask("OPTIONS", "/chat", headers=asked)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "x-stainless-lang" in answer.headers["access-control-allow-headers"]
    evil = client.ask("OPTIONS", "/chat", headers={**asked, "origin": "https://evil.example"})
    assert evil.status == 403 and "access-control-allow-origin" not in evil.headers


def test_a_limit_holds_for_each_caller_alone(make: Make) -> None:
    client = make(FakeService(rate_limit="3/minute"), KEYS)
    left = []
    for number in range(5):
        answer = client.ask("GET", "/models", headers={**bearer(USER), "x-forwarded-for": f"10.0.0.{number}"})
        left.append((answer.status, answer.headers["x-ratelimit-remaining-requests"]))
    assert left == [(200, "2"), (200, "1"), (200, "0"), (429, "0"), (429, "0")]
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["kind"] == "rate_limit_exceeded"
    assert answer.headers["x-ratelimit-limit-requests"] == "3"
    assert client.ask("GET", "/models", headers=bearer(ADMIN)).status == 200
    assert client.ask("GET", "/health").status == 200


def test_without_keys_a_limit_holds_for_each_address(make: Make) -> None:
    client = make(FakeService(rate_limit="1/hour"))
    assert [
        client.ask("GET", "/models", client=peer).status for peer in ("1.1.1.1", "1.1.1.1", "2.2.2.2")
    ] == [
        200,
        429,
        200,
    ]


def test_a_refusal_over_the_limit_reads_no_body(make: Make) -> None:
    client = make(FakeService(rate_limit="1/hour"))
    client.ask("GET", "/models")
    assert client.ask("POST", "/chat", b"x" * 100_000).status == 429 and client.read == 0


def test_the_time_of_a_comparison_does_not_depend_on_where_keys_differ() -> None:
    """Not a measurement, which a busy machine would spoil: the comparison is the library's constant-time one."""
    source = (Path(__file__).parents[2] / "src/llm_local/store/keys.py").read_text()
    assert "hmac.compare_digest" in source and not re.search(r"(digest|presented|key) ==", source)


def test_the_log_has_one_line_for_each_request(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", ACCESS_LOG)
    began = time.monotonic()
    client.ask(
        "GET",
        "/models?secret=canary",
        headers={"x-request-id": "label-1", "user-agent": "a\r\nb\x1b[31m\u2028"},
    )
    client.ask("POST", "/chat", HELLO, {"x-request-id": "bad id\r\n"})
    client.ask("GET", "/" + "p" * 5000)
    client.ask("GET", "/models", headers={"host": "evil.example"})
    found = [record for record in caplog.records if record.name == ACCESS_LOG]
    assert [record.__dict__["status"] for record in found] == [200, 200, 404, 421]
    kinds = [record.__dict__.get("error") for record in found]
    assert kinds == [None, None, "not_found", "misdirected_request"]
    assert (
        found[0].__dict__["client_request_id"] == "label-1" and "client_request_id" not in found[1].__dict__
    )
    assert found[0].__dict__["route"] == "/models" and len(found[2].__dict__["path"]) == 200
    assert "canary" not in str([record.__dict__ for record in found])
    assert all(0 <= record.__dict__["duration_ms"] <= 1000 * (time.monotonic() - began) for record in found)


def test_ids_are_ours_and_labels_are_theirs(client: Client, service: FakeService) -> None:
    one = client.ask("POST", "/chat", HELLO, {"x-request-id": "same"})
    two = client.ask("POST", "/chat", HELLO, {"x-request-id": "same"})
    odd = client.ask("POST", "/chat", HELLO, {"x-request-id": "x" * 65})
    assert one.headers["x-request-id"] == two.headers["x-request-id"] == "same"
    assert len({work.caller.request_id for work in service.works}) == 3
    assert re.fullmatch("[0-9a-f]{32}", odd.headers["x-request-id"])
    assert one.json()["id"] != two.json()["id"]
