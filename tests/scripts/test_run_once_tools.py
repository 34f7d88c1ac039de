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
from pathlib import Path

import pytest

from scripts.test_run_once import ROOT, SCRIPT, _elsewhere, run  # noqa: F401  (a fixture)

FILE = '''
import pathlib, time

def get_weather(city: str) -> dict:
    """Get the weather in a city"""
    pathlib.Path("ran").touch()
    return {"temperature": 21}
'''
SLOW = FILE.replace("    return", "    time.sleep(60)\n    return")
ASK = ("--model", "starter", "--temperature", "0", "--functions", "mine.py", "What is the weather in Lyon?")


@pytest.fixture(autouse=True)
def mine(_elsewhere: None) -> Path:  # noqa: F811
    path = Path("mine.py")
    path.write_text(FILE)
    return path


def test_a_whole_round_trip() -> None:
    done = run(*ASK, "--approve", "all")
    assert (done.code, done.out) == (0, b"The temperature is 21.\n")
    (line,) = done.err.splitlines()
    assert line.startswith('tool get_weather {"city": "Lyon"}: ok in ') and line.endswith(
        '{"temperature":21}'
    )
    report = run(*ASK, "--approve", "all", "--json").report
    assert report["text"] + "\n" == done.out.decode()
    (call,) = report["tool_calls"]
    assert (call["name"], call["arguments"], call["outcome"]) == ("get_weather", {"city": "Lyon"}, "ok")
    assert len(report["rounds"]) == 2
    assert report["usage"]["prompt_tokens"] == sum(one["usage"]["prompt_tokens"] for one in report["rounds"])
    assert sorted(path.name for path in Path().iterdir()) == ["mine.py", "ran"]


def test_what_a_tool_prints_is_no_answer(mine: Path) -> None:
    mine.write_text(
        "print('at the start')\n" + FILE.replace("    return", "    print('in the call')\n    return")
    )
    done = run(*ASK, "--approve", "all")
    assert (done.code, done.out) == (0, b"The temperature is 21.\n")
    printed, told = done.err.split("tool get_weather")
    assert printed.splitlines() == ["at the start", "in the call"] and told


def test_a_tool_of_an_mcp_server() -> None:
    server = f"'{sys.executable}' '{ROOT / 'tests' / 'tools' / 'mcp_server_everything.py'}'"
    words = ("--model", "starter", "--temperature", "0", "--mcp", server, "--approve", "all")
    done = run(*words, "--json", "--tool-choice", "get_weather", "What is the weather in Oslo?")
    assert done.code == 0, done.err
    (call, *_) = done.report["tool_calls"]
    assert (call["name"], call["source"], call["outcome"]) == ("get_weather", "mcp:everything_server", "ok")
    assert call["result"].startswith("18 degrees in")


def test_a_file_in_the_current_directory_is_no_tool_by_itself() -> None:
    words = [word for word in ASK if word not in ("--functions", "mine.py")]
    done = run(*words, "--show-prompt")
    assert done.code == 0 and "get_weather" not in done.err and not Path("ran").exists()


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


def on_a_terminal(keys: bytes, *words: str) -> tuple[int, str, str]:
    """Run with stdin a pipe and stdout and stderr files, and a controlling terminal to be asked on; press `keys`."""
    main, side = pty.openpty()
    with open("out", "wb") as out, open("err", "wb") as err:
        process = subprocess.Popen(
            [sys.executable, SCRIPT, *ASK, *words],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=lambda: _control(side),
        )
    assert process.stdin
    process.stdin.close()
    screen = b""
    while b"[y/a/N]" not in screen and process.poll() is None:
        if select.select([main], [], [], 0.2)[0]:
            screen += os.read(main, 4096)
    os.write(main, keys)
    code = process.wait(60)
    os.close(side)
    os.close(main)
    return code, Path("out").read_text(), screen.decode()


def _control(terminal: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def test_the_question_is_asked_on_the_terminal_when_all_streams_are_elsewhere() -> None:
    code, out, screen = on_a_terminal(b"y\n")
    assert (code, out) == (0, "The temperature is 21.\n")
    assert "The model asks to run a tool: get_weather (function of mine.py)" in screen
    assert '"city": "Lyon"' in screen
    assert Path("ran").exists()
    Path("ran").unlink()
    code, out, screen = on_a_terminal(b"\n")
    assert code == 0 and "21" not in out and not Path("ran").exists()


def test_ctrl_c_at_the_question() -> None:
    code, out, _ = on_a_terminal(b"\x03", "--json")
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
