"""`llm-local` as a person, a pipe and a script meet it: answers, refusals, exit codes, and what it costs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from hub_cache import add_model
from llm_local import __version__
from llm_local.cli import version as version_verb
from llm_local.cli.main import VERBS, main
from llm_local.errors import ModelNotFound

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "llm_local.cli.main"]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """One command line in a process of its own, in the temporary home."""
    options.setdefault("stdout", subprocess.PIPE)
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **options.pop("env", {})}
    return subprocess.run(
        [*COMMAND, *arguments],
        stderr=subprocess.PIPE,
        env=environ,
        cwd=options.pop("cwd", os.environ["HOME"]),
        text=True,
        check=False,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_verb(flag: str) -> None:
    done = run(flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout and verb.help in done.stdout for word, verb in VERBS.items())


@pytest.mark.parametrize("word", VERBS)
def test_every_verb_has_help(word: str) -> None:
    done = run(word, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: llm-local {word}")
    # what goes on for hours has no one object to print
    assert "--json" in done.stdout or word in ("chat", "serve")


def test_version_flag() -> None:
    assert (run("--version").stdout, run("--version").returncode) == (f"llm-local {__version__}\n", 0)


def test_version_verb_reports_what_is_installed() -> None:
    shown = dict(line.split(" ", 1) for line in run("version").stdout.splitlines())
    assert shown["llm-local"] == __version__
    assert shown["torch"] == version("torch")
    assert json.loads(run("version", "--json").stdout) == shown


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["confg"], "There is no verb 'confg'. Did you mean `llm-local config`?"),
        (["VERSION"], "Did you mean `llm-local version`?"),
        (["xyzzy"], f"The verbs are: {', '.join(VERBS)}."),
        (["con\x1b[31m\nfig"], "Did you mean `llm-local config`?"),
        (["config", "--jso"], "--jso. See --help."),
        (["config", "extra"], "extra. See --help."),
        (["--bogus"], "--bogus. See --help."),
    ],
)
def test_usage_mistakes_are_one_line_and_exit_2(arguments: list[str], hint: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable()
    assert hint in done.stderr


def test_no_verb_shows_the_help_and_is_a_usage_mistake() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: llm-local")


LOOKS = (
    "config",
    "config --json",
    "version",
    "list",
    "ps --json",
    "stop --json",
    "history list",
    "keys list",
)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *map(str.split, LOOKS), *([verb, "--help"] for verb in VERBS)],
    ids=" ".join,
)
def test_no_verb_imports_anything_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from llm_local.cli.main import main; code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'pydantic', 'huggingface_hub', 'numpy', 'asyncio', 'rich', 'jsonschema'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or code)"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environ, cwd=os.environ["HOME"], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- settings ---


@pytest.mark.parametrize(
    "words", [["list"], ["show", "org/there"], ["verify", "org/there"], ["rm", "org/there"]]
)
def test_what_looks_for_models_looks_where_the_settings_say(words: list[str], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    add_model("org/there")
    Path(os.environ["HF_HOME"]).rename(elsewhere)
    (tmp_path / ".env").write_text(f"HF_HOME={elsewhere}\nHF_HOMME=x\n")
    environ = {"HF_HOME": ""}
    done = run(*words, cwd=tmp_path, env=environ)
    assert done.returncode == 0 and "org/there" in done.stdout + done.stderr
    assert "HF_HOMME" in done.stderr  # a word that looks like a setting is told
    (tmp_path / ".env").write_text("OFFLINE=perhaps\n")
    done = run(*words, cwd=tmp_path, env=environ)
    assert done.returncode == 2 and "OFFLINE" in done.stderr


# --- broken outputs ---


@pytest.mark.parametrize(
    "arguments", [["--help"], ["config", "--help"], ["--version"], ["config"], ["version"]]
)
def test_a_full_device_is_exit_6_and_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 6
    assert done.stderr.startswith("error: Cannot write the answer to stdout: No space left on device.")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["config"], ["version", "--json"]])
def test_a_reader_who_left_is_exit_141_in_silence(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("environ", [{"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"COLUMNS": "1"}])
def test_any_locale_and_width(environ: dict[str, str]) -> None:
    done = run("config", env={**environ, "SYSTEM_PROMPT": "Grüße"}, encoding="utf-8")
    assert done.returncode == 0
    assert 'SYSTEM_PROMPT="Grüße"' in done.stdout
    assert run("--help", env=environ).returncode == 0


def test_closed_streams() -> None:
    command = f"'{sys.executable}' -m llm_local.cli.main config >&- 2>&- <&-"
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(["sh", "-c", command], env=environ, cwd=os.environ["HOME"], check=False, timeout=60)
    assert done.returncode == 1, "what was asked for went nowhere"


# --- failures inside a verb ---


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the verb `version` raise `error`."""

    def run_verb(*_: object) -> None:
        raise error

    monkeypatch.setattr(version_verb, "run", run_verb)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ModelNotFound("No model x.", "Pull it."), 3, "error: No model x. Pull it.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(), 141, ""),
        (
            ZeroDivisionError("by\nzero"),
            1,
            "error: ZeroDivisionError: by zero (run again with --debug for the traceback)\n",
        ),
    ],
    ids=lambda part: type(part).__name__,
)
def test_every_failure_is_a_code_and_one_line(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fail_with(error, monkeypatch)
    assert main(["version"]) == code
    assert capfd.readouterr() == ("", line)


@pytest.mark.parametrize("arguments", [["--debug", "version"], ["version", "--debug"]])
def test_debug_adds_the_traceback(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fail_with(ModelNotFound("No model x."), monkeypatch)
    assert main(arguments) == 3
    shown = capfd.readouterr().err.splitlines()
    assert shown[0] == "Traceback (most recent call last):"
    assert shown[-1] == "error: No model x."


def test_ctrl_c_on_a_real_process() -> None:
    program = (
        "import sys, time; from llm_local.cli import main as cli, settings\n"
        "def run(*_):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "settings.run = run\n"
        "sys.exit(cli.main(['config']))"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)
    assert (process.returncode, shown) == (130, "interrupted\n")


def test_the_console_script_is_this_main() -> None:
    assert 'llm-local = "llm_local.cli.main:main"' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_a_terminal_gets_a_table_without_escapes(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = run("config", stdout=theirs, env={"MODEL_ID": "a\x1b]52;c;eA==\x07b"})
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    finally:
        os.close(ours)
    assert done.returncode == 0
    assert b"\x1b" not in shown
    assert rb"a\x1b]52;c;eA==\x07b" in shown
    assert b"TOP_K " in shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says EIO where the other end of a terminal is closed
        return b""
