"""`llm-local ps` and `llm-local stop`, over real processes that say they are servers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_local.cli.main import main
from llm_local.store import servers
from llm_local.store.servers import Registration, running_servers, servers_folder
from serving import Start, starting_servers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start() -> Iterator[Start]:
    with starting_servers() as begin:
        yield begin


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        out, err = capfd.readouterr()
        return code, out, err

    return run


def on_a_terminal() -> list[str]:
    """The lines that `ps` shows to a person."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "llm_local.cli.main", "ps"], stdout=theirs, check=True, timeout=60
        )
        os.close(theirs)
        return os.read(ours, 65536).decode().splitlines()
    finally:
        os.close(ours)


def test_nothing_runs(told: Any) -> None:
    assert told("ps") == (0, "", "No server is running.\n")
    assert told("ps", "--json") == (0, "[]\n", "")
    assert told("stop") == told("stop", "all") == (0, "", "No server is running.\n")
    code, out, err = told("stop", "8000")
    assert (code, out) == (2, "") and "No server of llm-local runs on port 8000" in err
    assert not servers_folder().exists()


def test_a_server_is_a_line_in_a_pipe_and_an_object_for_programs(told: Any) -> None:
    soon = time.time() + 300
    with Registration(
        "127.0.0.1", 8000, model="org/m\x1b[2J", memory_bytes=2_500_000_000, keep_alive_until=soon
    ):
        code, out, err = told("ps")
        assert (code, err) == (0, "")
        cells = out.removesuffix("\n").split("\t")
        assert cells[:3] == ["8000", "127.0.0.1", str(os.getpid())]
        assert cells[3].isprintable() and cells[4] == "2500000000"
        (found,) = json.loads(told("ps", "--json")[1])
        assert cells[5:] == [found["started"], found["keep_alive_until"]]
        _, row = on_a_terminal()
        assert "2.50 GB" in row and row.endswith("  in 5 min")
    assert (found["model"], found["memory_bytes"]) == ("org/m\x1b[2J", 2_500_000_000)
    assert found["started"].endswith("+00:00") and found["process_visible"] is True
    assert "process_start" not in found


@pytest.mark.parametrize(
    ("model", "left_s", "shown"),
    [(None, 60, "-"), ("m", None, "it stops"), ("m", 60.4, "in 60 s"), ("m", -5, "in 0 s")],
)
def test_people_are_told_until_when_in_words(model: str | None, left_s: float | None, shown: str) -> None:
    until = None if left_s is None else time.time() + left_s
    with Registration("127.0.0.1", 8000, model=model, keep_alive_until=until):
        assert on_a_terminal()[1].endswith(f"  {shown}")


def test_a_terminal_gets_a_table() -> None:
    with Registration("127.0.0.1", 8000, model="starter", memory_bytes=8_100_000):
        header, row = on_a_terminal()
    assert "\x1b" not in header + row and "8.10 MB" in row
    assert header.index("MODEL") == row.index("starter")


def test_stop_waits_until_it_is_drained(start: Start, told: Any) -> None:
    child = start(8001, 0.3)
    assert told("stop") == (0, "stopped the server on port 8001\n", "")
    assert child.wait(30) == 0


def test_stop_says_when_time_is_over_and_a_second_one_ends_it(start: Start, told: Any) -> None:
    child = start(8001, 60)
    code, out, err = told("stop", "8001", "--timeout", "0.2")
    assert (code, out) == (8, "")
    assert "port 8001 is still finishing" in err and err.count("\n") == 1
    assert child.poll() is None
    code, out, _ = told("stop", "8001", "--json")
    assert code == 0
    shown = json.loads(out)
    assert [one["port"] for one in shown["stopped"]] == [8001] and shown["still_running"] == []
    assert child.wait(30) == 0


def test_of_several_one_must_be_named(start: Start, told: Any) -> None:
    children = [start(8001), start(8002)]
    code, out, err = told("stop")
    assert (code, out) == (2, "") and "8001, 8002" in err
    assert [child.poll() for child in children] == [None, None]
    assert told("stop", "8002")[0] == 0
    assert [one.port for one in running_servers()] == [8001]
    assert told("stop", "all") == (0, "stopped the server on port 8001\n", "")
    assert [child.wait(30) for child in children] == [0, 0]


@pytest.mark.parametrize("word", ["eighty", "-1", "８０", "8001x", "*"])
def test_what_is_no_port_is_refused(word: str, told: Any) -> None:
    assert told("stop", word)[0] == 2


def test_a_killed_server_is_nothing_to_stop(start: Start, told: Any) -> None:
    child = start(8001)
    child.kill()
    child.wait()
    assert told("stop") == (0, "", "No server is running.\n")


def test_a_server_that_cannot_be_seen_is_left_alone(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Registration("127.0.0.1", 8001):
        monkeypatch.setattr(servers, "process_start", lambda pid: "another boot")
        monkeypatch.setattr("llm_local.store.processes.process_start", lambda pid: "another boot")
        assert json.loads(told("ps", "--json")[1])[0]["process_visible"] is False
        code, _, err = told("stop")
        assert code == 1 and "Stop it in the container" in err
        assert len(running_servers()) == 1


def test_somebody_elses_server_is_named(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, start: str) -> None:
        raise PermissionError(pid)

    monkeypatch.setattr(servers, "terminate", refuse)
    with Registration("127.0.0.1", 8001):
        code, _, err = told("stop")
    assert code == 1 and "belongs to another user" in err
