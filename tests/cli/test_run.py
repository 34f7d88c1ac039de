"""`llm-local run` is `scripts/run_once.py` with the model in front: same answers, same refusals, same exit codes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_local.cli.main import verb_parser
from llm_local.cli.run import make_parser
from llm_local.errors import InvalidRequest
from scripts.endless_model import write_endless_model

ROOT = Path(__file__).parents[2]
VERB = [sys.executable, "-m", "llm_local.cli.main", "run"]
SCRIPT = [sys.executable, str(ROOT / "scripts" / "run_once.py")]
# Nobody listens there, so the hub is unreachable at once and without a network.
SETTINGS = {"HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(command: list[str], *words: str, **details: Any) -> subprocess.CompletedProcess[str]:
    details.setdefault("input", "")
    return subprocess.run(
        [*command, *words],
        env={**os.environ, **SETTINGS},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **details,
    )


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {string for action in parser._actions for string in action.option_strings}


def test_it_has_the_flags_of_the_script() -> None:
    assert flags(make_parser()) - flags(verb_parser("run")) == {"-m", "--model", "--version"}
    assert flags(verb_parser("run")) <= flags(make_parser())


def test_it_answers_as_the_script_does() -> None:
    words = ("--temperature", "0", "--max-tokens", "8", "--json")
    verb = run(VERB, "starter", *words, "Say hello")
    script = run(SCRIPT, "--model", "starter", *words, "Say hello")
    assert verb.returncode == script.returncode == 0, verb.stderr
    ours, theirs = json.loads(verb.stdout), json.loads(script.stdout)
    assert ours["text"] and ours["model"] == "starter"
    assert {**ours, "timings": 0} == {**theirs, "timings": 0}


def test_flags_may_stand_anywhere_and_a_prompt_with_a_dash_after_two() -> None:
    done = run(VERB, "starter", "--show-prompt", "--max-tokens", "1", "--", "--help", input="piped")
    assert done.returncode == 0, done.stderr
    assert "piped\n\n--help" in done.stderr and "usage" not in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "required: MODEL"),
        (("starter", "one", "two"), 2, "two"),
        (("starter", "--model", "other", "Hi"), 2, "--model"),
        (("starter",), 2, "prompt"),
        (("starter", "--temperature", "99", "Hi"), 2, "--temperature"),
        (("./nowhere", "Hi"), 3, "nowhere"),
        (("org/unknown", "Hi"), 5, "hub"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(words: tuple[str, ...], code: int, said: str) -> None:
    done = run(VERB, *words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert said in done.stderr


def test_an_error_is_an_object_with_json() -> None:
    done = run(VERB, "./nowhere", "--json", "Hi")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"]["kind"] == "model_not_found"


def test_ctrl_c_keeps_what_was_said(tmp_path: Path) -> None:
    model = str(write_endless_model(tmp_path / "endless"))
    with subprocess.Popen(
        [*VERB, model, "--max-tokens", "50000", "go on"],
        env={**os.environ, **SETTINGS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"interrupted" in said and b"Traceback" not in said


def test_help_comes_before_what_is_missing() -> None:
    done = run(VERB, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: llm-local run") and "MODEL [PROMPT]" in done.stdout


def test_the_script_takes_one_prompt_and_says_how() -> None:
    with pytest.raises(InvalidRequest, match="Only one prompt is taken"):
        make_parser().parse(["one", "two"])
