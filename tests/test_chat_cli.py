"""The plain chat as a real program: in a terminal, in a pipe, and where there is neither."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pty_terminal import CTRL_C, CTRL_D, ENTER, PASTE_BEGIN, PASTE_END, PtyTerminal
from scripts.endless_model import write_endless_model

PROGRAM = [sys.executable, "-m", "llm_local.chat_cli"]
SCRIPTED = [sys.executable, str(Path(__file__).parent / "rich_chat_program.py")]
READY = "Ctrl-D leaves."
STOPPED = "[stopped here; what came is kept]"
HELLO = 'Hello! I am the starter model of llm-local. Ask me: "What can you do?"'
LONG = "word " * 4000


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_endless_model(tmp_path_factory.mktemp("models") / "endless")


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str | None]:
    return {"LLM_LOCAL_HOME": str(tmp_path / "chats"), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., list[str]]:
    """Makes the command of a plain chat whose model gives `replies`: a fifth of the time of a real one."""

    def command(*replies: str, delay_s: float = 0.0) -> list[str]:
        script = tmp_path / "script.json"
        script.write_text(json.dumps({"replies": replies, "delay_s": delay_s, "plain": True}))
        return [*SCRIPTED, str(script)]

    return command


def piped(
    home: dict[str, Any], said: bytes, command: list[str], **details: Any
) -> subprocess.CompletedProcess[bytes]:
    details.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(
        command,
        input=said,
        stderr=subprocess.PIPE,
        env={**os.environ, **home},
        timeout=120,
        check=False,
        **details,
    )


def test_a_chat_at_a_terminal(home: dict[str, Any], tmp_path: Path) -> None:
    with PtyTerminal([*PROGRAM, "--model", "starter", "-v"], env=home, cwd=tmp_path) as terminal:
        terminal.wait_for(READY)
        terminal.send("Hello" + ENTER)
        terminal.wait_for("tok/s")
        assert HELLO in terminal.screen()
        # a paste of several lines is one question, and so is what stands between the marks
        terminal.send(PASTE_BEGIN + "What is\n2+2?" + PASTE_END + ENTER)
        terminal.wait_for("tok/s", count=2)
        terminal.send('"""What is' + ENTER + '3+3?"""' + ENTER)
        screen = terminal.wait_for("tok/s", count=3)
        assert ". 3+3?" in screen
        cached = [int(count) for count in re.findall(r"(\d+) of them", screen)]
        assert cached[0] == 0 and cached[1] > 0 and cached[2] > cached[1]  # only what is new was read
        # the line is edited and completed here
        terminal.send("/hist\t")
        terminal.wait_for("> /history")
        terminal.send(ENTER)
        assert "6  assistant" in terminal.wait_for("6  assistant")
        terminal.send(CTRL_D)
        assert terminal.exit_code() == 0
        assert terminal.modes() == terminal.modes_before
        assert "Traceback" not in terminal.scrollback()


def test_ctrl_c_means_what_is_going_on(home: dict[str, Any], endless: Path) -> None:
    words = ["--model", str(endless), "--max-tokens", "9000", "--no-history"]
    with PtyTerminal([*PROGRAM, *words], env=home) as terminal:
        terminal.wait_for(READY)
        for number in range(1, 6):
            terminal.send("Go on" + ENTER)
            terminal.wait_until(lambda: terminal.cursor()[1] > 20)
            time.sleep(0.03 * number)
            begun = time.monotonic()
            terminal.send(CTRL_C)
            terminal.wait_for(STOPPED, count=number)
            assert time.monotonic() - begun < 3  # some hundredths on a machine that is not busy
        # a text that is typed is cleared
        terminal.wait_until(lambda: terminal.screen().endswith("\n>"))
        terminal.send("half a qu")
        terminal.wait_for("> half a qu")
        terminal.send(CTRL_C)
        terminal.wait_until(lambda: terminal.screen().endswith("> half a qu\n>"))
        # twice at an empty line
        terminal.send(CTRL_C)
        terminal.wait_for("Ctrl-C again leaves")
        terminal.wait_until(lambda: terminal.screen().endswith("\n>"))
        terminal.send(CTRL_C)
        assert terminal.exit_code() == 130
        assert terminal.modes() == terminal.modes_before
        assert "Traceback" not in terminal.scrollback()


@pytest.mark.parametrize(
    ("number", "answering", "code"),
    [(signal.SIGTERM, False, 143), (signal.SIGHUP, False, 129), (signal.SIGTERM, True, 143)],
)
def test_signals_end_the_chat_and_give_the_terminal_back(
    home: dict[str, Any], scripted: Callable[..., list[str]], number: int, answering: bool, code: int
) -> None:
    with PtyTerminal(scripted(LONG, delay_s=0.005), env=home) as terminal:
        terminal.wait_for(READY)
        terminal.wait_until(lambda: terminal.screen().endswith("\n>"))
        terminal.send("Go on" + (ENTER if answering else ""))
        terminal.wait_until(lambda: not answering or terminal.cursor()[1] > 20)
        terminal.wait_for("> Go on")
        terminal.signal(number)
        assert terminal.exit_code() == code
        assert terminal.modes() == terminal.modes_before
        assert (STOPPED in terminal.screen()) is answering
    if answering:  # the part was stored, and the next chat goes on with it
        done = piped(home, b"/history\n", [*scripted(), "-c"])
        assert done.returncode == 0 and b"Go on" in done.stderr and b"2  assistant" in done.stderr


def test_what_is_typed_during_an_answer_comes_after_it(
    home: dict[str, Any], scripted: Callable[..., list[str]]
) -> None:
    with PtyTerminal(scripted("word " * 40, "Fine.", delay_s=0.005), env=home) as terminal:
        terminal.wait_for(READY)
        terminal.wait_until(lambda: terminal.screen().endswith("\n>"))
        terminal.send("Go on" + ENTER)
        terminal.wait_for("word word")
        terminal.send("And you?" + ENTER + CTRL_D)
        assert terminal.exit_code() == 0
        assert terminal.modes() == terminal.modes_before
        answered = " ".join(terminal.scrollback().partition("> Go on")[2].split())
        assert answered == "word " * 40 + "> And you? Fine. >"


@pytest.mark.parametrize(
    "env",
    [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"TERM": None}, {"LC_ALL": "C", "LANG": "C"}],
    ids=["dumb", "no color", "no TERM", "C"],
)
def test_terminals_of_few_words(
    home: dict[str, Any], scripted: Callable[..., list[str]], env: dict[str, str | None]
) -> None:
    with PtyTerminal(scripted("Schön, 你好!"), env={**home, **env}) as terminal:
        terminal.wait_for(READY)
        terminal.wait_until(lambda: terminal.screen().endswith("\n>"))
        terminal.send("Grüße?" + ENTER)
        terminal.wait_for("Schön, 你好!")
        terminal.send("/show prompt" + ENTER)
        terminal.wait_for("Grüße?<|im_end|>")
        terminal.send(CTRL_D)
        assert terminal.exit_code() == 0
        assert "LC_ALL" in env or terminal.escapes() == []
        assert terminal.modes() == terminal.modes_before


def test_a_pipe_is_one_turn_a_line(home: dict[str, Any]) -> None:
    said = b'Hello\n"""What is\n2+2?"""\n\nHel\xfflo\n/list'
    done = piped(home, said, [*PROGRAM, "--model", "starter"])
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and len(lines) == 3
    assert lines[0] == HELLO
    told = done.stderr.decode()
    assert (
        told.startswith("stdin contains bytes that are not UTF-8") and "Hello" in told
    )  # in the list, a title
    assert b"\x1b" not in done.stdout + done.stderr
    chats = Path(str(home["LLM_LOCAL_HOME"]))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (chats / "conversations").rglob("*"))


@pytest.mark.parametrize(
    ("said", "code", "start"),
    [
        (b"", 0, ""),
        (b"Hello\n\x7fELF\0\0\nHello\n", 2, "error: stdin is no text, since it has a NUL character"),
        (b"/nope\n", 2, "error: There is no command /nope."),
        (b"x" * 2_000_000, 2, "error: The prompt has "),
    ],
    ids=["nothing", "binary", "command", "long"],
)
def test_what_a_pipe_may_bring(
    home: dict[str, Any], scripted: Callable[..., list[str]], said: bytes, code: int, start: str
) -> None:
    done = piped(home, said, [*scripted("Hello."), "--no-history"])
    assert done.returncode == code and done.stderr.decode().startswith(start)
    assert done.stderr.count(b"\n") <= 1 and b"Traceback" not in done.stderr


@pytest.mark.parametrize(("how", "code"), [("full", 6), ("gone", 141)])
def test_when_stdout_takes_nothing(
    home: dict[str, Any], scripted: Callable[..., list[str]], how: str, code: int
) -> None:
    if how == "full":
        taken = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, taken = os.pipe()
        os.close(reader)
    done = piped(home, b"Hello\nHello\n", scripted("One.", "Two."), stdout=taken)
    os.close(taken)
    assert done.returncode == code and done.stderr.count(b"\n") <= 1


def test_a_closed_stdout_is_noticed_at_once(home: dict[str, Any]) -> None:
    done = piped(home, b"Hello\n", PROGRAM, preexec_fn=lambda: os.close(1))
    assert done.returncode == 1
    assert done.stderr == b"error: stdout is closed, so the answers have nowhere to go.\n"


def test_help_is_quick_and_complete() -> None:
    program = "import sys; from llm_local.chat_cli import main; code = main(['--help']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; sys.exit(code)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    for flag in (
        "--model",
        "--system-prompt",
        "--max-tokens",
        "--temperature",
        "--continue",
        "--conversation",
    ):
        assert flag in done.stdout
    assert {"torch", "transformers", "rich", "prompt_toolkit", "sqlite3", "readline"}.isdisjoint(
        done.stdout.split()
    )


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["--modle", "x"], 2), (["Hello"], 2)])
def test_words_of_the_command_line(words: list[str], code: int) -> None:
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code
    assert (done.stdout if code == 0 else done.stderr).count("\n") == 1


def test_the_launcher_starts_the_module() -> None:
    root = Path(__file__).parent.parent
    assert '-m llm_local.chat_cli "$@"' in (root / "chat.sh").read_text(encoding="utf-8")
    assert importlib.util.find_spec("llm_local.chat_cli") is not None
