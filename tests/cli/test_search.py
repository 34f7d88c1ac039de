"""`llm-local search`: what is asked, what is shown, and what a hub cannot do by its answer."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from fakehub import FakeHub, running_hub, status, web_page, without_waiting
from llm_local.cli.main import main
from llm_local.cli.search import _SORTS
from llm_local.errors import InvalidRequest
from llm_local.store.searching import MAX_RESULTS, SORTS, SearchQuery, parse_size

Search = Callable[..., tuple[int, str, str]]


def listed(ref: str, **details: Any) -> dict[str, Any]:
    return {
        "id": ref,
        "downloads": 1234567,
        "likes": 89,
        "pipeline_tag": "text-generation",
        "gated": False,
        "tags": ["transformers", "safetensors", "license:apache-2.0"],
        "safetensors": {"parameters": {"BF16": 1_500_000_000, "F32": 40_000_000}, "total": 1_540_000_000},
        "lastModified": "2026-01-02T03:04:05.000Z",
        **details,
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one page of models."""
    with running_hub() as hub:
        hub.pages = [json.dumps([listed("org/one"), listed("org/two", gated="auto")]).encode()]
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        without_waiting(monkeypatch)
        yield hub


@pytest.fixture
def search(hub: FakeHub, capfd: pytest.CaptureFixture[str]) -> Search:
    """Runs the verb; gives back exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["search", *arguments])
        return code, *capfd.readouterr()

    return run


def asked(hub: FakeHub) -> dict[str, list[str]]:
    """What the last request asked for."""
    return parse_qs(urlsplit(hub.requests[-1].path).query)


def test_lines_for_programs(search: Search) -> None:
    code, out, err = search("qwen")
    assert (code, err) == (0, "")
    first, second = (line.split("\t") for line in out.splitlines())
    assert first == [
        "org/one", "1234567", "89", "1540000000", "3160000000", "text-generation", "apache-2.0", "safetensors", ""
    ]  # fmt: skip
    assert second[0] == "org/two" and second[-1] == "gated"


def test_json_for_programs(search: Search) -> None:
    first = json.loads(search("--json", "qwen")[1])[0]
    assert (first["ref"], first["num_bytes"], first["updated"]) == ("org/one", 3_160_000_000, "2026-01-02")


def test_a_table_on_a_terminal(hub: FakeHub) -> None:
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "llm_local.cli.main", "search", "qwen"],
        stdout=follower,
        timeout=60,
        check=True,
    )
    os.close(follower)
    lines = os.read(leader, 65536).decode().splitlines()
    os.close(leader)
    assert done.returncode == 0
    assert lines[0].split() == [
        "NAME",
        "DOWNLOADS",
        "LIKES",
        "PARAMETERS",
        "SIZE",
        "TASK",
        "LICENSE",
        "FORMAT",
    ]
    assert lines[1].split() == ["org/one", "1.23M", "89", "1.54B", "3.16", "GB", "text-generation", "apache-2.0",
                                "safetensors"]  # fmt: skip
    assert "apache-2.0 (gated)" in lines[2]


def test_every_flag_reaches_the_hub(search: Search, hub: FakeHub) -> None:
    flags = (
        "--author org --task text-generation --license mit --max-size 3b --no-gated --sort updated --limit 7"
    ).split()
    assert search("two words", "& more=1", *flags)[0] == 0
    found = asked(hub)
    expected = {
        "search": "two words & more=1", "author": "org", "pipeline_tag": "text-generation", "filter": "license:mit",
        "num_parameters": "max:3000000000", "gated": "false", "sort": "lastModified",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == {name: [value] for name, value in expected.items()}
    assert {"safetensors", "downloads"} <= set(found["expand"])
    search("--gated", "--limit", "7")
    assert (asked(hub)["gated"], asked(hub)["limit"], "search" in asked(hub)) == (["true"], ["7"], False)


def test_size_is_looked_at_here_too(search: Search, hub: FakeHub) -> None:
    small = {"parameters": {"BF16": 500_000_000}, "total": 500_000_000}
    models = [
        listed("org/large"),
        listed("org/small", safetensors=small),
        listed("org/silent", safetensors=None),
    ]
    hub.pages = [json.dumps(models).encode()]
    for size in ("1b", "600m", "1GB", "1000MB"):
        assert [line.split("\t")[0] for line in search("--max-size", size)[1].splitlines()] == ["org/small"]


@pytest.mark.parametrize(
    ("text", "parameters", "num_bytes"),
    [
        ("3b", 3 * 10**9, None), ("1.5B", 1_500_000_000, None), ("500m", 500_000_000, None), ("4GB", None, 4 * 10**9),
        ("800mb", None, 800_000_000), ("0.5 TB", None, 500 * 10**9),
    ],
)  # fmt: skip
def test_sizes(text: str, parameters: int | None, num_bytes: int | None) -> None:
    assert parse_size(text) == (parameters, num_bytes)


@pytest.mark.parametrize(
    "text", ["", "b", "3", "3x", "3g", "-3b", "1e9b", "3bb", "nanb", "9" * 20 + "b", "3\n"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no size"):
        parse_size(text)


@pytest.mark.parametrize(
    "flags",
    [
        ["a" * 201], ["a\x1bb"], ["a\nb"], ["--author", "a/b"], ["--author", "../x"], ["--task", "a b"],
        ["--license", "mit&x=1"], ["--limit", "0"], ["--limit", "101"], ["--limit", "x"], ["--limit", "-1"],
        ["--sort", "size"], ["--max-size", "big"], ["--gated", "--no-gated"], ["\ud800"], ["--author", ""],
    ],
    ids=repr,
)  # fmt: skip
def test_what_cannot_be_looked_for_is_not_sent(search: Search, hub: FakeHub, flags: list[str]) -> None:
    code, out, err = search(*flags)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    assert hub.requests == []


def test_pages_are_followed_until_there_are_enough(search: Search, hub: FakeHub) -> None:
    hub.pages = [json.dumps([listed(f"org/m{page}-{n}") for n in range(3)]).encode() for page in range(9)]
    assert len(search("--limit", "5")[1].splitlines()) == 5
    assert len(hub.requests) == 2
    assert len(search("--limit", "100")[1].splitlines()) == 15  # five pages are enough for anybody


def test_a_next_page_elsewhere_is_not_asked_for(search: Search, hub: FakeHub) -> None:
    with running_hub() as stranger:
        link = {"Link": f'<{stranger.url}/api/models?cursor=1>; rel="next"'}
        hub.faults["search"].append(status(200, link, hub.pages[0]))
        assert len(search("--limit", "50")[1].splitlines()) == 2
        assert stranger.requests == []


def test_what_is_only_pickle_is_listed_and_said_to_be_refused(search: Search, hub: FakeHub) -> None:
    hub.pages = [json.dumps([listed("org/old", tags=["pytorch"], safetensors=None)]).encode()]
    code, out, err = search()
    assert code == 0 and out.split("\t")[-2] == "pickle" and "are refused" in err


def test_nothing_is_found(search: Search, hub: FakeHub) -> None:
    hub.pages = [b"[]"]
    assert search("xyzzy") == (0, "", "Nothing was found.\n")
    assert search("--json", "xyzzy")[1] == "[]\n"


def test_entries_that_make_no_sense_are_left_out_and_fields_of_other_types_are_unknown(
    search: Search, hub: FakeHub
) -> None:
    odd = [
        None, 3, "x", [], {}, {"id": 3}, {"id": "../../x"}, {"id": "a/b/c"}, {"id": "org/\x1b[2J"},
        listed("org/odd", downloads="many", likes=-1, safetensors={"parameters": {"BF16": "x"}}, tags="x",
               pipeline_tag={"a": 1}, gated=None, cardData=[1], lastModified=7),
        listed("org/new", safetensors={"parameters": {"F5_E1M3": 100}}, gguf={"total": 5}),
        listed("org/gguf", safetensors=None, gguf={"total": 7_000}, tags=["gguf"]),
    ]  # fmt: skip
    hub.pages = [json.dumps(odd).encode()]
    code, out, _ = search()
    found = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert found[0] == ["org/odd", "", "", "", "", "", "", "", ""]
    assert found[1][3:5] == ["100", ""]
    assert found[2][3:8] == ["7000", "", "text-generation", "", "gguf"]


def test_what_the_hub_says_cannot_drive_the_terminal(search: Search, hub: FakeHub) -> None:
    hub.pages = [json.dumps([listed("org/one", pipeline_tag="a\x1b[31m\tb\nc" + "d" * 5000)]).encode()]
    out = search()[1]
    assert "\x1b" not in out and out.count("\n") == 1 and out.count("\t") == 8 and len(out) < 400


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"<html>", b"[" * 100_000, b"\xff"])
def test_an_answer_that_is_no_list(search: Search, hub: FakeHub, body: bytes) -> None:
    hub.faults["search"].append(status(200, body=body))
    code, out, err = search()
    assert (code, out) == (5, "") and "not a model hub" in err


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([status(500), status(429, {"Retry-After": "1"})], 0), ([status(500)] * 9, 5), ([status(400)], 5),
        ([status(401)], 4), ([web_page], 5), ([status(200, body=b" " * (9 << 20))], 5),
    ],
)  # fmt: skip
def test_failures_of_the_hub(search: Search, hub: FakeHub, faults: list[Any], expected: int) -> None:
    hub.faults["search"] += faults
    code, _, err = search("x")
    assert code == expected
    assert err.count("error: ") == (expected != 0)


def test_offline_is_one_line(search: Search, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for prepare in (lambda: None, lambda: monkeypatch.setenv("HF_HUB_OFFLINE", "1")):
        prepare()
        code, out, err = search("x", *([] if os.environ.get("HF_HUB_OFFLINE") else ["--offline"]))
        assert (code, out) == (5, "") and err.count("\n") == 1 and "switched off" in err
    assert hub.requests == []


def test_without_a_network_it_is_one_line(
    hub: FakeHub, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, out, err = search("x")
    assert (code, out) == (5, "") and err.count("\n") == 1 and "cannot be reached" in err


def test_the_flag_and_the_query_know_the_same_orders() -> None:
    assert set(_SORTS) == set(SORTS)
    assert SearchQuery(limit=MAX_RESULTS).limit == MAX_RESULTS
