"""`llm-local chat`, and `llm-local run` without a prompt: which front a chat gets, and when there is one at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from llm_local.cli import chat, run
from llm_local.cli.main import verb_parser
from llm_local.terminal.streams import AnswerWriter, Messages
from pty_terminal import CTRL_D, ENTER, PtyTerminal
from terminal.fake_streams import FakeRaw

LLM_LOCAL = [sys.executable, "-m", "llm_local.cli.main"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, bool]]:
    """The model and whether it is plain, of each chat that is begun."""
    begun: list[tuple[str | None, bool]] = []
    monkeypatch.setattr(
        chat,
        "run_chat",
        lambda args, make_front, messages: begun.append((args.model_id, make_front is chat._plain)) or 7,
    )
    return begun


def call(module, name: str, *words: str) -> int:
    args = verb_parser(name).parse_intermixed_args(words)
    return module.run(args, AnswerWriter(FakeRaw()), Messages(FakeRaw()))


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        ((), (None, False)),
        (("starter",), ("starter", False)),
        (("starter", "--plain", "-c"), ("starter", True)),
        (("--no-history", "org/name"), ("org/name", False)),
    ],
)
def test_chat_takes_the_model_as_a_word(
    opened, words: tuple[str, ...], begun: tuple[str | None, bool]
) -> None:
    assert call(chat, "chat", *words) == 7
    assert opened == [begun]


@pytest.mark.parametrize(
    ("words", "terminals", "is_chat"),
    [
        ((), (0, 1), True),
        (("--temperature", "0", "-v"), (0, 1), True),
        ((), (1,), False),  # the pipe is the prompt
        ((), (0,), False),  # whoever reads the pipe expects one answer
        (("Hello",), (0, 1), False),
        (("-",), (0, 1), False),
        (("--json",), (0, 1), False),
        (("--raw",), (0, 1), False),
        (("--choice", "yes"), (0, 1), False),
        (("--json-mode",), (0, 1), False),
        (("--batch", "x"), (0, 1), False),
    ],
)
def test_run_is_a_chat_without_a_prompt_at_a_terminal(
    opened, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], terminals: tuple[int, ...], is_chat: bool
) -> None:
    class Asked:
        def run(self, args: object) -> int:
            return 8

    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor in terminals)
    monkeypatch.setattr(run, "_one_shot", lambda *parts: Asked())
    monkeypatch.setattr(run.StopSignals, "install", lambda self: None)
    monkeypatch.setattr(AnswerWriter, "take_stdout", lambda: AnswerWriter(FakeRaw()))
    assert call(run, "run", "starter", *words) == (7 if is_chat else 8)
    assert opened == ([("starter", False)] if is_chat else [])


def test_run_opens_the_rich_chat_at_a_terminal(tmp_path: Path) -> None:
    env = {"LLM_LOCAL_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    with PtyTerminal([*LLM_LOCAL, "run", "starter"], env=env) as terminal:
        terminal.wait_for("❯")
        terminal.send("Hello\x1b" + ENTER)
        terminal.wait_for("I am the starter model")
        terminal.wait_for("❯", count=2)
        terminal.send(CTRL_D)
        assert terminal.exit_code() == 0
        assert terminal.modes() == terminal.modes_before
