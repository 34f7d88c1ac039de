"""docs/api.md is whole, fresh and true: every route, and every curl run against a real server."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.api_page import openapi_document, with_routes
from api.asgi import Client
from api.live_server import LiveServer, running_server
from api.test_access import routes
from curl_examples import Curl, curls_of, events_of, missing_from
from fakehub import running_hub
from hub_cache import model_files
from llm_local.api.border import _EXPOSED

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
OTHERS = ("README.md", "docs/serving.md")
PULLED = "HuggingFaceTB/SmolLM2-135M-Instruct"
MESSAGES = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server of its own: the page loads and unloads models, and pulls one from a hub on loopback."""
    with running_hub() as hub:
        hub.add(PULLED, model_files())
        folder = tmp_path_factory.mktemp("api_page")
        with running_server(folder, OFFLINE="false", HF_ENDPOINT=hub.url) as server:
            yield server


def made(server: LiveServer, path: str, body: object) -> dict[str, Any]:
    """What a curl with an id in its address needs to be there."""
    status, answer = server.ask("POST", path, body)
    assert status in (200, 202), answer
    assert isinstance(answer, dict)
    return answer


def ask(server: LiveServer, curl: Curl) -> tuple[int, str, str]:
    """Status, content type and text of the answer to a curl of the page, with real ids in place of its words."""
    target = curl.target
    if "REQUEST_ID" in target:
        target = target.replace("REQUEST_ID", made(server, "/queue/add", {"messages": MESSAGES})["id"])
    if "CONVERSATION_ID" in target:
        found = made(server, "/api/v1/chat", {"message": "Hello!"})
        target = target.replace("CONVERSATION_ID", found["conversation_id"])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        # what curl sends of itself with -d
        form = {} if curl.body is None else {"content-type": "application/x-www-form-urlencoded"}
        body = None if curl.body is None else curl.body.encode()
        connection.request(curl.method, target, body, {**form, **curl.headers})
        response = connection.getresponse()
        return response.status, response.getheader("content-type", ""), response.read().decode()
    finally:
        connection.close()


def missing(curl: Curl, text: str) -> list[str]:
    """What the page shows below a curl and the answer does not have."""
    if curl.language == "json":
        return missing_from(json.loads(curl.shown), json.loads(text))
    real, lost = events_of(text), []
    for name, data in events_of(curl.shown):
        tries = [missing_from(data, one) for other, one in real if other == name]
        if isinstance(data, str) and name == "":  # a line that stands there just so
            tries = [[] if data in [one for _, one in real] else [f"the line {data}"]]
        lost += min(tries, key=len, default=[f"an event {name!r}"])
    return lost


def test_the_generated_parts_are_fresh() -> None:
    assert with_routes(PAGE, openapi_document()) == PAGE, "run scripts/generate_docs.py"


def test_a_page_that_lacks_a_dialect_would_be_noticed() -> None:
    with pytest.raises(ValueError, match="routes native"):
        with_routes(PAGE.replace("<!-- made: routes native -->", ""), openapi_document())


def test_every_route_is_on_the_page_and_no_other(client: Client) -> None:
    documented = re.findall(r"^#### `([A-Z]+) (\S+)`$", PAGE, re.M)
    for aside in (r"^Not in the headings below, (.*?)\.\n\n", r"refused with the reason: (.*?)\.\n"):
        sentence = re.search(aside, PAGE, re.M | re.S)
        assert sentence
        for method, paths in re.findall(r"`([A-Z]+)` on ([^;]*)", sentence[1]):
            documented += [(method, path) for path in re.findall(r"`(\S+)`", paths)]
    shown = [(method, re.sub(r"\{[^}]*\}", "x", path)) for method, path in documented]
    assert len(shown) == len(set(shown)) > 60
    assert set(shown) == set(routes(client.app))


def test_every_header_of_ours_is_on_the_page() -> None:
    table = PAGE.replace("`-remaining-requests`, `-reset-requests`", "x-ratelimit-remaining-requests, "
                         "x-ratelimit-reset-requests")  # fmt: skip
    names = [name.strip() for name in _EXPOSED.split(",")]
    assert [name for name in names if name not in table and name != "request-id"] == []


def test_every_curl_of_the_page_does_what_the_page_shows(server: LiveServer) -> None:
    curls = list(curls_of(PAGE))
    assert len(curls) > 60
    wrong = []
    for curl in curls:
        status, kind, text = ask(server, curl)
        shows_error = curl.language == "json" and "error" in json.loads(curl.shown)
        told = f"{curl.method} {curl.target}: {status}"
        if (status >= 400) != shows_error or status >= 500:
            wrong.append(f"{told} {text[:300]}")
        elif curl.shown:
            wrong += [f"{told}: {one} is not in the answer" for one in missing(curl, text)]
        if (
            '"error"' in text
            and not shows_error
            and kind.startswith(("text/event-stream", "application/x-ndjson"))
        ):
            wrong.append(f"{told} fails in its stream: {text[-300:]}")
    assert wrong == []


def test_the_curls_of_other_pages_are_answered(server: LiveServer) -> None:
    curls = [one for name in OTHERS for one in curls_of((ROOT / name).read_text(encoding="utf-8"))]
    assert len(curls) >= len(OTHERS)
    answers = [(curl.target, ask(server, curl)) for curl in curls]
    assert [(target, status) for target, (status, _, _) in answers if status not in (200, 202)] == []


def test_what_an_answer_lacks_would_be_noticed() -> None:
    shown: Any = {"a": [{"b": 1}], "c": "x", "d": None}
    assert missing_from(shown, {"a": [{"b": 2.5}, 3], "c": "y", "d": 4, "e": 5}) == []
    assert missing_from(shown, {"a": [], "c": 1}) == [".d", ".a is no list, or an empty one", ".c is 1"]
    stream = Curl(
        "GET", "/", language="text", shown='event: delta\ndata: {"text":"a"}\n\nevent: finish\ndata: {}'
    )
    assert missing(stream, 'event: delta\ndata: {"text":"b"}\n\n') == ["an event 'finish'"]
    assert missing(stream, 'event: delta\ndata: {"t":"b"}\n\nevent: finish\ndata: {}\n\n') == [".text"]
    lines = Curl("GET", "/", language="text", shown='{"status":"success"}')
    assert missing(lines, '{"status":"x"}\n') == [] and missing(lines, "{}") == [".status"]
    comment = Curl("GET", "/", language="text", shown="# TYPE a")
    assert missing(comment, "# TYPE b\n") == ["the line # TYPE a"] and missing(comment, "# TYPE a\n") == []


def test_a_curl_that_nobody_here_understands_would_be_noticed() -> None:
    with pytest.raises(ValueError, match="--data-binary"):
        list(curls_of("```sh\ncurl http://127.0.0.1:8000/x --data-binary @file\n```\n"))
    with pytest.raises(ValueError, match="does not end"):
        list(curls_of("```sh\ncurl http://127.0.0.1:8000/x -d '{\n```\n"))
    [one] = curls_of("```sh\n./api.sh\ncurl -X PUT \\\n  'http://127.0.0.1:8000/x?a=1' -d '{\n}' # so\n```\n")
    assert (one.method, one.target, one.body) == ("PUT", "/x?a=1", "{\n}")
