"""`llm-local decide` as a person, a pipe and a script meet it."""

from __future__ import annotations

import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_local.cli import decide
from llm_local.cli.main import main
from llm_local.generation.choices import DecisionOptions
from llm_local.generator import TextGenerator
from llm_local.messages import Message
from llm_local.model_loader import load_tokenizer_and_model, resolve_model
from llm_local.plugins import LOADERS
from llm_local.specs import ModelSpec
from plugin_packages import install

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "llm_local.cli.main", "decide", "-m", "starter"]

QUESTION = "What is the capital of France?"
PARIS, LONDON, BERLIN = (f"The capital of France is {city}." for city in ("Paris", "London", "Berlin"))
CHOICES = ["--choice", LONDON, "--choice", PARIS, "--choice", BERLIN]

Output = pytest.CaptureFixture[str]


def run(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """One command line in a process of its own, in the temporary home."""
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, check=False, timeout=120, cwd=os.environ["HOME"], **options
    )  # fmt: skip


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the verb a text on its standard input."""

    def pipe(text: str | bytes) -> None:
        reader, writer = os.pipe()
        os.write(writer, text.encode() if isinstance(text, str) else text)
        os.close(writer)
        monkeypatch.setattr(decide, "STDIN", reader)

    pipe("")
    return pipe


def expected(messages: list[Message], choices: list[str], options: DecisionOptions | None = None) -> Any:
    """What the generator itself says."""
    resolved = resolve_model(ModelSpec("starter"), explicit=True)
    generator = TextGenerator(load_tokenizer_and_model(resolved.spec, path=resolved.path))
    return generator.decide_chat(messages, choices, options or DecisionOptions())


def test_a_pipe_gets_probabilities_and_choices_best_first() -> None:
    done = run(QUESTION, *CHOICES, input="")
    assert done.returncode == 0
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    wanted = expected([Message("user", QUESTION)], [LONDON, PARIS, BERLIN]).ranked
    assert [text for _, text in lines] == [one.text for one in wanted]
    assert [float(share) for share, _ in lines] == pytest.approx(
        [one.probability for one in wanted], rel=1e-3
    )
    assert lines[0][1] == PARIS
    assert "% of what the model would say begins with one of the choices\n" in done.stderr


def test_json_is_one_object_with_everything(piped: Any, capfd: Output) -> None:
    assert main(["decide", "-m", "starter", QUESTION, *CHOICES, "--json", "--whole"]) == 0
    shown = json.loads(capfd.readouterr().out)
    wanted = expected([Message("user", QUESTION)], [LONDON, PARIS, BERLIN], DecisionOptions(whole=True))
    assert shown["best"] == wanted.best.text == PARIS
    assert [one["text"] for one in shown["choices"]] == [one.text for one in wanted.ranked]
    for one, other in zip(shown["choices"], wanted.ranked, strict=True):
        assert one["logprob"] == pytest.approx(other.logprob, abs=1e-4)
        assert one["logprob"] == pytest.approx(math.fsum([*one["token_logprobs"], one["end_logprob"]]))
    assert shown["coverage"] == pytest.approx(sum(math.exp(one["logprob"]) for one in shown["choices"]))
    assert (shown["whole"], shown["normalize"], shown["num_passes"]) == (True, "none", 2)
    assert shown["usage"]["prompt_tokens"] == shown["usage"]["total_tokens"] == wanted.usage.prompt_tokens
    assert shown["model"] == "starter"


def test_best_prints_the_winner_alone(piped: Any, capfd: Output) -> None:
    assert main(["decide", "-m", "starter", "--best", *CHOICES, QUESTION]) == 0
    assert capfd.readouterr().out == PARIS + "\n"


def test_what_is_piped_comes_before_the_question(piped: Any, capfd: Output) -> None:
    piped("My name is Ada.\n")
    words = ["decide", "-m", "starter", "-s", "Be kind.", "--json", "What is my name?"]
    assert main([*words, "--choice", "Your name is Ada", "--choice", "Your name is Bob"]) == 0
    shown = json.loads(capfd.readouterr().out)
    turns = [Message("system", "Be kind."), Message("user", "My name is Ada.\n\nWhat is my name?")]
    wanted = expected(turns, ["Your name is Ada", "Your name is Bob"])
    assert shown["best"] == wanted.best.text
    assert shown["usage"]["prompt_tokens"] == wanted.usage.prompt_tokens
    assert shown["choices"][0]["logprob"] == pytest.approx(wanted.best.logprob, abs=1e-4)


def test_a_dash_takes_the_question_from_stdin(piped: Any, capfd: Output) -> None:
    piped(QUESTION + "\n")
    assert main(["decide", "-m", "starter", "--best", "-", *CHOICES]) == 0
    assert capfd.readouterr().out == PARIS + "\n"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
def test_choices_come_from_a_file(tmp_path: Path, piped: Any, capfd: Output, ending: str) -> None:
    file = tmp_path / "choices.txt"
    file.write_bytes(f"{LONDON}{ending}{PARIS}{ending}".encode())
    words = ["decide", "-m", "starter", "--json", QUESTION, "--choices", str(file), "--choice", BERLIN]
    assert main(words) == 0
    shown = json.loads(capfd.readouterr().out)
    assert {one["text"] for one in shown["choices"]} == {LONDON, PARIS, BERLIN}


def test_choices_come_from_stdin(piped: Any, capfd: Output) -> None:
    piped(f"{LONDON}\n{PARIS}")
    assert main(["decide", "-m", "starter", "--best", QUESTION, "--choices", "-"]) == 0
    assert capfd.readouterr().out == PARIS + "\n"


def test_a_choice_of_several_lines_stays_on_one(piped: Any, capfd: Output) -> None:
    assert main(["decide", "-m", "starter", QUESTION, "--choice", "a\n\tb", "--choice", "c"]) == 0
    out = capfd.readouterr().out
    assert out.count("\n") == 2
    assert "\ta\\n\\tb\n" in out


def test_one_choice_in_front_of_another_is_told(piped: Any, capfd: Output) -> None:
    words = ["decide", "-m", "starter", QUESTION, "--choice", "Paris", "--choice", "Paris!", "-v"]
    assert main(words) == 0
    shown = capfd.readouterr().err
    assert "'Paris' is the beginning of 'Paris!': the choices are scored as whole replies" in shown
    assert "% of what the model would say is one of the choices\n" in shown
    assert "2 forward passes" in shown
    assert main([*words, "--no-whole"]) == 2


def test_normalization_is_never_silent(piped: Any, capfd: Output) -> None:
    words = [
        "decide",
        "-m",
        "starter",
        QUESTION,
        "--choice",
        PARIS,
        "--choice",
        "Paris",
        "--normalize",
        "tokens",
    ]
    assert main(words) == 0
    assert "compared by the mean over tokens" in capfd.readouterr().err


def test_raw_text_goes_on_as_it_is(piped: Any, capfd: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEM_PROMPT", "Be kind.")
    words = ["decide", "-m", "starter", "--raw", "--json", "The capital of France is"]
    assert main([*words, "--choice", " Paris", "--choice", " London"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["usage"]["prompt_tokens"] < 20
    assert any("SYSTEM_PROMPT" in notice for notice in shown["notices"])


def test_a_terminal_gets_a_table() -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, QUESTION, "--choice", "a\x1b[31m", "--choice", PARIS],
            stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, check=False, timeout=120,
            cwd=os.environ["HOME"],
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    finally:
        os.close(ours)
    assert done.returncode == 0
    lines = shown.decode().splitlines()
    assert lines[0].split() == ["probability", "logprob", "choice"]
    assert lines[1].split(maxsplit=2)[2] == PARIS
    assert lines[2].endswith(r"a\x1b[31m")
    assert "\x1b" not in shown.decode()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([QUESTION], "There is no choice. Give each with --choice"),
        ([QUESTION, "--choice", "yes"], "There is only one choice."),
        ([QUESTION, "--choice", "yes", "--choice", ""], "A choice is empty."),
        ([QUESTION, "--choice", "yes", "--choice", "yes"], "The choice 'yes' is there twice."),
        (["--choice", "yes", "--choice", "no"], "No prompt given."),
        ([QUESTION, "--choices", "/nowhere/at/all"], "The file '/nowhere/at/all' cannot be read"),
        ([QUESTION, "--choices", "/"], "Cannot read /: Is a directory."),
        (["-", "--choices", "-"], "Standard input cannot be both"),
        ([QUESTION, *CHOICES, "--best", "--json"], "--best and --json exclude each other."),
        ([QUESTION, *CHOICES, "--whole", "--no-whole"], "not allowed with argument"),
        ([QUESTION, *CHOICES, "--normalize", "words"], "invalid choice: 'words'"),
        ([QUESTION, *CHOICES, "--raw", "-s", "x"], "--system-prompt has no place with --raw."),
        (["one", "two", *CHOICES], "unrecognized arguments: two".capitalize()),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_mistakes_are_found_without_a_model(
    words: list[str], message: str, piped: Any, capfd: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_ID", "/there/is/no/such/model")
    assert main(["decide", *words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_model_that_is_not_there_is_exit_3(piped: Any, capfd: Output) -> None:
    assert main(["decide", "-m", "/there/is/no/such/model", QUESTION, *CHOICES]) == 3
    assert capfd.readouterr().out == ""


def test_a_question_that_does_not_fit_is_exit_2(piped: Any, capfd: Output) -> None:
    assert main(["decide", "-m", "starter", "--context-length", "24", QUESTION, *CHOICES]) == 2
    assert "context length is 24 tokens" in capfd.readouterr().err


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says EIO where the other end of a terminal is closed
        return b""


def test_what_a_plug_in_writes_to_stdout_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even past Python: `verdict=$(llm-local decide --best ...)` must hold the verdict alone."""
    loud = (
        "import os\nos.write(1, b'noise')\nclass L:\n    claims = lambda self, path: False\n    load = None\n"
    )
    site = install(tmp_path / "site", "pack", {LOADERS: {"loud": "loud:LOADER"}}, {"loud": ""})
    (site / "loud.py").write_text(loud.replace("load = None", "load = claims") + "LOADER = L()\n")
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{site}")
    monkeypatch.setenv("PLUGINS", "loud")
    done = run("--best", QUESTION, *CHOICES)
    assert (done.returncode, done.stdout) == (0, PARIS + "\n")
    assert "noise" in done.stderr
