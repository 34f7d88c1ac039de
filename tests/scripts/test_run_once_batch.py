"""`scripts/run_once.py --batch` as people run it: real processes and real models."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scripts.endless_model import write_endless_model

SCRIPT = str(Path(__file__).parents[2] / "scripts" / "run_once.py")


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two threads wait for each other on a busy machine


def write(name: str, *lines: Mapping[str, Any] | str) -> str:
    Path(name).write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in lines))
    return name


def run(*words: str, stdin: bytes = b"") -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, results, what stderr tells."""
    command = [sys.executable, SCRIPT, *words]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=120)
    return done.returncode, read(done.stdout), told(done.stderr)


def told(err: bytes) -> str:
    """Without the progress of loading, which only a busy machine is slow enough to show."""
    return "".join(line for line in err.decode().splitlines(True) if not line.startswith("loading "))


def read(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_a_line_has_the_answer_it_would_have_alone() -> None:
    asked = {"prompt": "Grüße! What can you do?", "temperature": 1.5, "seed": 11, "max_new_tokens": 24}
    others = [{"prompt": f"Tell me about {n} things.", "max_new_tokens": 3 + n} for n in range(40)]
    mixed = [json.dumps(one) for one in [*others[:20], asked, *others[20:]]]
    mixed[5] = '{"prompt": "\\ud800"}'
    code, results, err = run("--model", "starter", "--batch", "-", stdin="\n".join(mixed).encode())
    assert code == 1, err
    assert [result["line"] for result in results] == list(range(1, 42))
    assert [result["line"] for result in results if "error" in result] == [6]
    assert "40 of 41 lines answered, 1 failed (line 6)" in err and err.count("\n") == 1
    words = ["--model", "starter", "--json", "--seed", "11", "--temperature", "1.5", "--max-tokens", "24"]
    _, [alone], _ = run(*words, asked["prompt"])
    together = results[20]
    assert together["seed"] == 11
    assert [together[key] for key in ("text", "options", "finish_reason")] == [
        alone[key] for key in ("text", "options", "finish_reason")
    ]


def test_ctrl_c_keeps_results_and_the_same_command_goes_on(tmp_path: Path) -> None:
    model = str(write_endless_model(tmp_path / "endless"))
    short = {"prompt": "a", "max_new_tokens": 5}
    batch = write("in.jsonl", short, short, {"prompt": "b", "max_new_tokens": 90_000}, short)
    command = [sys.executable, SCRIPT, "--model", model, "--batch", batch]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        begun = process.stdout.readline() + process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=30)
    assert (process.returncode, len(read(begun)), rest) == (130, 2, b"")
    assert told(err).startswith("interrupted\n2 of 4 lines answered, 2 left")

    output = Path("out.jsonl")
    process = subprocess.Popen([*command, "--output", str(output)], stderr=subprocess.PIPE)
    while not output.exists() or output.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=30)
    with output.open("ab") as file:
        file.write(b'{"line": 3, "text": "tor')
    before = output.read_bytes()[: -len(b'{"line": 3, "text": "tor')]
    # cut the endless one short: an edited line is noticed, unless it has no result yet
    write("in.jsonl", short, short, {"prompt": "b", "max_new_tokens": 9}, short)
    code, results, err = run("--model", model, "--batch", batch, "--output", str(output))
    assert (code, results) == (0, []), err
    assert "torn" in err and "2 of 4 lines have a result" in err
    assert output.read_bytes().startswith(before)
    assert [(r["line"], r["usage"]["completion_tokens"]) for r in read(output.read_bytes())] == [
        (1, 5),
        (2, 5),
        (3, 9),
        (4, 5),
    ]
