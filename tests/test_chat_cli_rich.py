"""The rich chat in a real pseudo-terminal, with pyte as the screen somebody looks at."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pty_terminal import CTRL_C, CTRL_D, ENTER, ESCAPE, META_ENTER, PASTE_BEGIN, PASTE_END, PtyTerminal

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "tests" / "rich_chat_program.py"
PROMPT = "❯"
CTRL_G, CTRL_R, TAB = "\x07", "\x12", "\t"


class RichChat(PtyTerminal):
    """A chat whose model gives `replies`, one after the other, with `delay_s` before each token (a byte)."""

    def __init__(self, home: Path, *replies, delay_s=0.0, load_s=0.0, flags=(), env=None, **size) -> None:
        home.mkdir(exist_ok=True)
        script = home / f"script-{time.monotonic_ns()}.json"
        script.write_text(json.dumps({"replies": replies, "delay_s": delay_s, "load_s": load_s}))
        environment = {"LLM_LOCAL_HOME": str(home), "OMP_NUM_THREADS": "1", **(env or {})}
        super().__init__([sys.executable, PROGRAM, script, *flags], env=environment, cwd=home, **size)

    def ask(self, text: str) -> None:
        self.send(text + META_ENTER)

    def wait_for_prompts(self, count: int) -> None:
        self.wait_until(lambda: len(re.findall(f"(?m)^{PROMPT}", self.scrollback())) >= count, "a prompt")

    def leave(self) -> int:
        self.send(CTRL_C + CTRL_D)
        return self.exit_code()


def answers(chat: PtyTerminal, begin: str) -> list[str]:
    """The rows from the one that has `begin` to the last prompt, without empty ones."""
    rows = chat.scrollback().split("\n")
    start = next(number for number, row in enumerate(rows) if begin in row)
    end = max(number for number, row in enumerate(rows) if row.startswith(PROMPT))
    return [row for row in rows[start + 1 : end] if row]


def long_answer(num_lines: int) -> list[str]:
    return [f"Line {number:03} with a few words." for number in range(num_lines)]


def test_300_lines_in_24_rows_leave_exactly_the_answer(tmp_path):
    with RichChat(tmp_path, "\n".join(long_answer(300))) as chat:
        chat.wait_for_prompts(1)
        chat.ask("tell me")
        chat.wait_for_prompts(2)
        assert answers(chat, "tell me") == long_answer(300)
        assert chat.leave() == 0
        assert chat.modes() == chat.modes_before


def test_code_lists_and_tables_are_drawn_and_a_model_cannot_drive_the_terminal(tmp_path):
    code = "\n".join(f"value_{number} = {number}" for number in range(60))
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
    reply = f"# Head\n{evil}\n\n- one\n- two\n\n```python\n{code}\n```\n\n|a|b|\n|-|-|\n|1|2|\n"
    with RichChat(tmp_path, reply) as chat:
        chat.wait_for_prompts(1)
        chat.ask("draw")
        chat.wait_for_prompts(2)
        rows = answers(chat, "draw")
        assert rows[:5] == ["Head", "\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202e", "• one", "• two", "python"]
        assert [row for row in rows if row.startswith("value_")] == code.split("\n")
        assert rows[-3:] == ["├────────┼────────┤", "│ 1      │ 2      │", "╰────────┴────────╯"]
        assert (
            b"\x1b]0;" not in chat.raw and b"\x1b[31m" not in chat.raw and "\u202e".encode() not in chat.raw
        )


def test_a_window_that_changes_while_an_answer_comes_loses_nothing(tmp_path):
    with RichChat(tmp_path, "\n".join(long_answer(120)), delay_s=0.0005) as chat:
        chat.wait_for_prompts(1)
        chat.ask("go on")
        for number, columns in enumerate((100, 60, 44, 90, 50, 80), 1):
            chat.wait_for(f"Line {number * 15:03}")
            chat.resize(columns, 24)
        chat.wait_for("Line 119 with")
        chat.wait_until(lambda: chat.screen().count(PROMPT) >= 1, "the prompt")
        assert re.findall(r"Line \d{3}", "\n".join(answers(chat, "go on"))) == [
            f"Line {number:03}" for number in range(120)
        ]


def test_ctrl_c_at_ten_instants_gives_the_prompt_back(tmp_path):
    chance = random.Random(5)
    reply = "\n".join(long_answer(3000))
    with RichChat(tmp_path, *[reply] * 10, delay_s=0.0002) as chat:
        for turn in range(1, 11):
            chat.wait_for_prompts(turn)
            chat.ask(f"question {turn}")
            chat.wait_for(f"question {turn}")
            time.sleep(chance.random() * 0.3)
            asked_s = time.monotonic()
            chat.send(CTRL_C)
            chat.wait_for("[stopped", count=turn)
            assert time.monotonic() - asked_s < 2  # 300 ms on a machine that has nothing else to do
            chat.wait_for_prompts(turn + 1)
        assert chat.leave() == 0
        assert chat.modes() == chat.modes_before
        assert chat.raw.rindex(b"\x1b[?25h") > chat.raw.rindex(b"\x1b[?25l")  # the cursor is shown again
        assert chat.raw.rindex(b"\x1b[?7h") > chat.raw.rindex(b"\x1b[?7l")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(tmp_path, number):
    with RichChat(tmp_path, "\n".join(long_answer(3000)), delay_s=0.001) as chat:
        chat.wait_for_prompts(1)
        chat.ask("go")
        chat.wait_for("Line 001")
        chat.signal(number)
        assert chat.exit_code() == 128 + number
        assert chat.scrollback().endswith("[stopped here; what came is kept]")
        assert chat.modes() == chat.modes_before
        assert chat.raw.rindex(b"\x1b[?25h") > chat.raw.rindex(b"\x1b[?25l")


@pytest.mark.parametrize(("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGHUP, "hung up")])
def test_a_signal_at_the_prompt_leaves_nothing_of_it(tmp_path, number, word):
    with RichChat(tmp_path) as chat:
        chat.wait_for_prompts(1)
        chat.send("half typed")
        chat.wait_for("half typed")
        chat.signal(number)
        assert chat.exit_code() == 128 + number
        assert chat.scrollback().endswith(f"╯\n\n{word}") and chat.modes() == chat.modes_before


def test_loading_shows_a_bar_that_goes_away(tmp_path):
    with RichChat(tmp_path, "x", load_s=2.0) as chat:
        chat.wait_for("━━")
        assert "  weights\\x1b[2J.safe…" in chat.scrollback()
        chat.wait_for_prompts(1)
        assert "weights" not in chat.scrollback()
        assert "scripted" in chat.scrollback() and "Alt+Enter sends" in chat.scrollback()


def test_typing_completing_searching_and_several_lines(tmp_path):
    with RichChat(tmp_path, "first reply", "second reply", "third reply") as chat:
        chat.wait_for_prompts(1)
        chat.ask("explain transformers" + ENTER + "and caches")
        chat.wait_for("first reply")
        chat.wait_for_prompts(2)
        chat.send("/hist" + TAB)
        chat.wait_for("/history")
        chat.send(ENTER)
        chat.wait_for("first reply", count=2)
        chat.wait_for_prompts(3)
        chat.send("not sent")
        chat.send(CTRL_R)
        chat.wait_for("search ❯")
        chat.send("xptrcch")
        chat.wait_for("explain transformers⏎and caches")
        chat.send(ENTER)
        chat.wait_for("· and caches", count=2)
        chat.send(" again" + META_ENTER)
        chat.wait_for("second reply")
        chat.wait_for_prompts(4)
        chat.send("kept")
        chat.send(CTRL_R)
        chat.wait_for("search ❯")
        chat.send(ESCAPE)
        chat.wait_for(f"{PROMPT} kept")
        assert chat.leave() == 0
    history = tmp_path / ".llm_chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    entries = re.findall(r"^\+(.*)$", history.read_text(), re.MULTILINE)
    assert entries == [
        *("explain transformers", "and caches"),
        "/history",
        *("explain transformers", "and caches again"),
    ]


def test_enter_sends_where_it_is_set_so(tmp_path):
    with RichChat(tmp_path, "reply", env={"CHAT_ENTER_SUBMITS": "true"}) as chat:
        chat.wait_for_prompts(1)
        assert " Enter sends" in chat.screen()
        chat.send("one" + META_ENTER + "two" + ENTER)
        chat.wait_for("reply")
        assert "· two" in chat.scrollback()
        assert chat.leave() == 0


def test_an_editor_changes_what_is_typed(tmp_path):
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf "from the editor\\n" >>"$1"\n')
    editor.chmod(0o700)
    with RichChat(tmp_path, "reply", env={"EDITOR": str(editor), "VISUAL": None}) as chat:
        chat.wait_for_prompts(1)
        chat.send("begun" + ENTER)
        chat.send(CTRL_G)
        chat.wait_for("· from the editor")
        chat.send(META_ENTER)
        chat.wait_for("reply")
        chat.leave()


def test_five_megabytes_are_pasted_and_arrive(tmp_path):
    text = "".join(f"pasted line {number:06}\n" for number in range(280_000))
    with RichChat(tmp_path, "reply") as chat:
        chat.wait_for_prompts(1)
        chat.send(PASTE_BEGIN + text + PASTE_END)
        chat.wait_for("[paste 1: 5,320,000 characters, 280,001 lines]")
        chat.send(META_ENTER)
        chat.wait_for("error")
        # more than the window holds, and so the count of its tokens tells that all of it was read
        assert re.search(r"5,?3[23]\d,?\d{3} tokens", chat.scrollback())
        assert chat.leave() == 0
    assert not (tmp_path / ".llm_chat_history").exists()  # the mark would mean nothing to the next chat


def test_two_chats_keep_the_inputs_of_both(tmp_path):
    with RichChat(tmp_path, "one") as first, RichChat(tmp_path, "two") as second:
        first.wait_for_prompts(1)
        second.wait_for_prompts(1)
        first.ask("of the first")
        second.ask("of the second")
        first.wait_for_prompts(2)
        second.wait_for_prompts(2)
    entries = re.findall(r"^\+(.*)$", (tmp_path / ".llm_chat_history").read_text(), re.MULTILINE)
    assert sorted(entries) == ["of the first", "of the second"]


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_where_escapes_are_not_welcome_the_chat_is_plain(tmp_path, env):
    with RichChat(tmp_path, "reply", env=env) as chat:
        chat.wait_for("/help lists the commands")
        assert "╭" not in chat.screen()
        chat.send("hello\r")
        chat.wait_for("reply")
        chat.send(CTRL_D)
        assert chat.exit_code() == 0
        if "TERM" in env:
            assert chat.escapes() == []


def test_a_pipe_gets_the_answer_and_nothing_else(tmp_path):
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"replies": ["**reply**"]}))
    done = subprocess.run(
        [sys.executable, PROGRAM, script],
        input=b"hello\n",
        capture_output=True,
        env={**os.environ, "LLM_LOCAL_HOME": str(tmp_path)},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"**reply**\n")


def test_help_loads_neither_rich_nor_prompt_toolkit():
    code = (
        "import sys; from llm_local.chat_cli_rich import main; code = main(['--help']);"
        "heavy = {'rich', 'prompt_toolkit', 'pygments', 'torch', 'transformers', 'markdown_it'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: chat-rich.sh")
