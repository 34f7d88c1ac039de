"""`llm-local compare` as a person, a pipe and a script meet it."""

from __future__ import annotations

import json
import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_local.cli import compare
from llm_local.cli.main import main
from llm_local.terminal.exit_codes import OK, RUNTIME_FAILURE, USAGE

QUESTION = "What is the capital of France?"
PARIS = "The capital of France is Paris."


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the verb a text on its standard input."""

    def pipe(text: str) -> None:
        reader, writer = os.pipe()
        os.write(writer, text.encode())
        os.close(writer)
        monkeypatch.setattr(compare, "STDIN", reader)

    pipe("")
    return pipe


def test_a_pipe_gets_markdown_with_every_answer(piped: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", QUESTION, "starter,temperature=0", "starter,temperature=0,max_tokens=5"]) == OK
    shown = capfd.readouterr().out
    assert f"> {QUESTION}" in shown
    assert f"## starter,temperature=0\n\n{PARIS}\n" in shown
    assert "## starter,temperature=0,max_tokens=5\n\nThe capital of\n" in shown
    assert "| length |" in shown


def test_settings_alone_are_about_the_model_of_the_flag(
    piped: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    piped("My name is Ada.\n")
    assert main(["compare", "-m", "starter", "--json", "What is my name?", "temperature=0", "top_k=1"]) == OK
    answers = json.loads(capfd.readouterr().out)["answers"]
    assert [one["label"] for one in answers] == ["starter,temperature=0", "starter,top_k=1"]
    assert answers[0]["text"] == answers[1]["text"] == "Your name is Ada."
    assert all(one["usage"]["completion_tokens"] > 1 < one["tokens_per_s"] for one in answers)


def test_one_that_fails_is_a_row_and_the_others_answer(
    piped: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFLINE", "1")
    assert main(["compare", QUESTION, "no/such", "starter,temperature=0"]) == OK
    shown = capfd.readouterr()
    assert PARIS in shown.out
    assert "no/such: " in shown.err
    assert main(["compare", QUESTION, "no/such"]) == RUNTIME_FAILURE


def test_a_file_is_written_once_and_over_only_when_told(
    piped: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "both.md"
    words = ["compare", QUESTION, "starter,temperature=0", "--save", str(file)]
    assert main(words) == OK
    assert PARIS in file.read_text()
    assert file.read_text() == capfd.readouterr().out
    file.write_text("mine")
    assert main(words) == USAGE
    assert (file.read_text(), capfd.readouterr().out) == ("mine", "")
    assert main([*words, "--force"]) == OK
    assert PARIS in file.read_text()


def test_wrong_words_are_named_before_a_model_is_loaded(
    piped: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", QUESTION, "starter,heat=1"]) == USAGE
    assert "no option 'heat'" in capfd.readouterr().err
    assert main(["compare", QUESTION]) != OK


@pytest.mark.parametrize("columns", [100, 40])
def test_a_terminal_shows_answers_side_by_side_where_there_is_room(columns: int) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.environ["COLUMNS"] = str(columns)
        contestants = ["starter,temperature=0", "starter,temperature=0,max_tokens=5"]
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execv(
            sys.executable, [sys.executable, "-m", "llm_local.cli.main", "compare", QUESTION, *contestants]
        )
    shown = b""
    try:
        while chunk := os.read(terminal, 65536):
            shown += chunk
    except OSError:  # Linux says EIO where the other end of a terminal is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == OK
    lines = shown.decode().splitlines()
    beside = [line for line in lines if "The capital of" in line and line.count("The capital of") == 2]
    assert bool(beside) == (columns == 100)
    assert any("tokens/s" in line for line in lines)
