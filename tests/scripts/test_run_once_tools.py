"""`scripts/run_once.py` with tools as people run it: the model that ships, real files, real terminals, real signals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.test_run_once import ROOT, SCRIPT, Done, _elsewhere, run  # noqa: F401  (a fixture)

FILE = '''
import pathlib, time

def get_weather(city: str) -> dict:
    """Get the weather in a city"""
    pathlib.Path("ran").touch()
    return {"temperature": 21}
'''
SLOW = FILE.replace("    return", "    time.sleep(60)\n    return")
ASK = ("--model", "starter", "--temperature", "0", "--functions", "mine.py", "What is the weather in Lyon?")


@pytest.fixture(autouse=True, scope="module")
def warm_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all: what the first start prepares makes the others quick, as it does for people."""
    return tmp_path_factory.mktemp("warm") / "llm-local"


@pytest.fixture(autouse=True)
def mine(_elsewhere: None, warm_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.setenv("LLM_LOCAL_HOME", str(warm_home))
    path = Path("mine.py")
    path.write_text(FILE)
    return path


def told(done: Done) -> list[str]:
    """stderr without what only the first start of all says: that it builds and loads."""
    lines = done.err.splitlines()
    return [line for line in lines if "building the native" not in line and not line.startswith("loading ")]


def test_a_whole_round_trip_where_what_the_tool_prints_is_no_answer(mine: Path) -> None:
    mine.write_text(
        "print('at the start')\n" + FILE.replace("    return", "    print('in the call')\n    return")
    )
    done = run(*ASK, "--approve", "all")
    assert (done.code, done.out) == (0, b"The temperature is 21.\n")
    first, second, line = told(done)
    assert (first, second) == ("at the start", "in the call")
    assert line.startswith('tool get_weather {"city": "Lyon"}: ok in ') and line.endswith(
        '{"temperature":21}'
    )
    assert sorted(path.name for path in Path().iterdir()) == ["mine.py", "ran"]


def test_a_report_of_it_all() -> None:
    report = run(*ASK, "--approve", "all", "--json").report
    assert report["text"] == "The temperature is 21."
    (call,) = report["tool_calls"]
    assert (call["name"], call["arguments"], call["outcome"]) == ("get_weather", {"city": "Lyon"}, "ok")
    assert len(report["rounds"]) == 2
    assert report["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in report["rounds"])


def test_a_tool_of_an_mcp_server_and_no_other() -> None:
    """The file in the current directory, which nobody named, is no tool by itself."""
    server = f"'{sys.executable}' '{ROOT / 'tests' / 'tools' / 'mcp_server_everything.py'}'"
    words = ("--model", "starter", "--temperature", "0", "--mcp", server, "--approve", "all", "--debug")
    done = run(
        *words, "--json", "--show-prompt", "--tool-choice", "get_weather", "What is the weather in Oslo?"
    )
    assert done.code == 0, done.err
    (call, *_) = done.report["tool_calls"]
    assert (call["name"], call["source"], call["outcome"]) == ("get_weather", "mcp:everything_server", "ok")
    assert call["result"].startswith("18 degrees in")
    assert "Get the current weather in a city." in done.report["prompt"]
    assert "Get the weather in a city" not in done.report["prompt"] and not Path("ran").exists()
    assert "mcp_server_everything.py: everything is ready" in done.err, "--debug shows the server's stderr"


def test_without_a_terminal_nothing_runs() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, *ASK],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,  # no controlling terminal
    )
    assert done.returncode == 0
    assert done.stderr.count("no terminal to ask on") == 1 and "--approve all" in done.stderr
    assert ": denied: " in done.stderr and "21" not in done.stdout
    assert not Path("ran").exists()


def on_a_terminal(keys: Sequence[bytes], *words: str, question: str = ASK[-1]) -> tuple[int, str, str]:
    """Run with stdin a pipe and stdout and stderr files, and a controlling terminal to be asked on.

    `keys` are pressed one line for each question.
    """
    main, side = pty.openpty()
    with open("out", "wb") as out, open("err", "wb") as err:
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *ASK[:-1], question, *words],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=lambda: _control(side),
        )
    assert process.stdin
    process.stdin.close()
    screen = b""
    for number, key in enumerate(keys, 1):
        while screen.count(b"[y/a/N]") < number and process.poll() is None:
            if select.select([main], [], [], 0.2)[0]:
                screen += os.read(main, 4096)
        os.write(main, key)
    code = process.wait(60)
    os.close(side)
    os.close(main)
    return code, Path("out").read_text(), screen.decode()


def _control(terminal: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_the_question_is_asked_on_the_terminal_when_all_streams_are_elsewhere(mine: Path) -> None:
    mine.write_text(FILE.replace('"ran").touch()', '"ran").open("a").write(city + "\\n")'))
    code, out, screen = on_a_terminal([b"y\n", b"\n"], "--json", question="Weather in Lyon and Paris?")
    assert code == 0
    assert screen.count("The model asks to run a tool: get_weather (function of mine.py)") == 2
    assert '"city": "Lyon"' in screen and '"city": "Paris"' in screen
    assert [one["outcome"] for one in json.loads(out)["tool_calls"]] == ["ok", "denied"]
    assert Path("ran").read_text() == "Lyon\n"


def test_ctrl_c_at_the_question() -> None:
    code, out, _ = on_a_terminal([b"\x03"], "--json")
    assert code == 130
    assert json.loads(out)["tool_calls"][0]["outcome"] == "cancelled"
    assert Path("err").read_text().splitlines()[-1] == "interrupted"
    assert not Path("ran").exists()


def test_ctrl_c_while_a_tool_runs_does_not_wait_for_it(mine: Path) -> None:
    mine.write_text(SLOW)
    words = [sys.executable, SCRIPT, *ASK, "--approve", "all", "--json"]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        until = time.monotonic() + 60
        while not Path("ran").exists() and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    report = json.loads(out)
    assert report["tool_calls"][0]["outcome"] == "cancelled"
    assert err.decode().splitlines()[-1] == "interrupted"


def test_a_slow_tool_is_not_waited_for(mine: Path) -> None:
    mine.write_text(SLOW)
    done = run(*ASK, "--approve", "all", "--tool-timeout", "0.2", "--json")
    assert done.code == 0
    (call,) = done.report["tool_calls"]
    assert call["outcome"] == "timed_out" and 0.2 <= call["run_s"] < 30
    assert "timed out" in done.err
