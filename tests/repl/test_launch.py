"""From a command line to a chat: settings, archive, model, options; and what is refused on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chat.chatting import make_model
from llm_local.chat.archive import Archive
from llm_local.config import Config
from llm_local.conversations.store import ConversationStore
from llm_local.errors import ModelNotFound
from llm_local.events import Progress
from llm_local.repl.flags import make_parser
from llm_local.repl.launch import Launch
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.chat_signals import ChatSignals
from llm_local.terminal.plain_view import PlainView
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.terminal_modes import TerminalModes
from repl.chats import Said, ScriptedInput
from terminal.fake_streams import FakeRaw


class Start:
    """One start of a chat, in which `said` is said; `replies` are those of the model, whatever it is called."""

    def __init__(self, *said: Said, replies: tuple[object, ...] = ("Hello.",), person: bool = False) -> None:
        self.stdout, self.stderr = FakeRaw(terminal=person), FakeRaw(terminal=person)
        self.input = ScriptedInput(said, interactive=person)
        self.configs: list[Config] = []
        self.parts: FrontParts | None = None
        self.models: list[SimpleNamespace] = []
        self.replies = replies
        self.failure: Exception | None = None
        self.stops = False
        self.messages = Messages(self.stderr)
        self.signals = ChatSignals(self.messages)

    def run(self, *words: str) -> int:
        launch = Launch(
            self._front,
            self.messages,
            self.signals,
            TerminalModes(999),
            AnswerWriter(self.stdout),
            opener=self._open,  # type: ignore[arg-type]
        )
        return launch.run(make_parser("chat.sh", "").parse(words))

    @property
    def asked(self) -> Any:
        """The ids of the last request, as text, and its options."""
        request = self.models[-1].engine.requests[-1]
        return bytes(request.prompt_ids).decode(), request.options

    def _front(self, parts: FrontParts) -> ChatFront:
        self.parts = parts
        read = self.input.ask if self.input.interactive else None
        return ChatFront(self.input, PlainView(parts.answer, parts.messages, read_line=read))

    def _open(self, config: Config, on_progress: Callable[[Progress], None]) -> SimpleNamespace:
        self.configs.append(config)
        on_progress(Progress("loading", 0, 6, "model.safetensors"))
        if self.stops:
            self.signals._handle(2, None)
            on_progress(Progress("loading", 3, 6, "model.safetensors"))
        if self.failure is not None:
            raise self.failure
        self.models.append(make_model(*self.replies, ref=config.model_id))
        return self.models[-1]


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_LOCAL_HOME", str(tmp_path / "chats"))
    monkeypatch.delenv("MODEL_ID", raising=False)
    before = dict(os.environ)
    yield
    os.environ.clear()  # a start prepares the environment of its process
    os.environ.update(before)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    (tmp_path / "chats").mkdir(exist_ok=True)
    store = ConversationStore.open()
    yield Archive(store)
    store.close()


def test_what_is_said_is_answered_and_stored(archive: Archive) -> None:
    start = Start("Hi")
    assert start.run("--model", "some/model") == 0
    assert (start.stdout.text, start.stderr.text) == ("Hello.\n", "")
    assert start.configs[0].model_id == "some/model" and start.configs[0].is_explicit("model_id")
    kept = archive.latest()
    assert kept is not None and (kept.title, kept.model, kept.num_messages) == ("Hi", "some/model", 2)
    assert start.input.closed == 1


def test_no_history_stores_nothing(tmp_path: Path) -> None:
    start = Start("Hi")
    assert start.run("--no-history") == 0
    assert start.stdout.text == "Hello.\n"
    assert start.parts is not None and start.parts.keeps_history is False
    assert not (tmp_path / "chats").exists()


def test_the_latest_conversation_goes_on_with_its_own_model(archive: Archive) -> None:
    Start("Hi").run("--model", "some/model", "-s", "Be brief.")
    start = Start("And you?", replies=("Fine.",))
    assert start.run("-c") == 0
    assert start.configs[0].model_id == "some/model"
    assert start.stderr.text == "The conversation goes on with some/model; name a model to take another.\n"
    text, _ = start.asked
    assert "system\nBe brief." in text and "user\nHi" in text and "assistant\nHello." in text
    kept = archive.latest()
    assert kept is not None and kept.num_messages == 5
    start = Start("Bye", replies=("Bye.",))
    assert start.run("--conversation", kept.id[:8], "--model", "other", "-s", "Be kind.") == 0
    assert start.configs[0].model_id == "other"
    assert "now other answers" in start.stderr.text and "system\nBe kind." in start.asked[0]


def test_going_on_with_nothing_is_said_and_begins() -> None:
    start = Start("Hi")
    assert start.run("-c") == 0
    assert "no conversation to go on with yet" in start.stderr.text and start.stdout.text == "Hello.\n"


def test_a_conversation_that_is_not_there_loads_no_model() -> None:
    start = Start("Hi")
    assert start.run("--conversation", "nope") == 3
    assert start.configs == [] and start.stderr.text.startswith("error: ") and "nope" in start.stderr.text


def test_options_of_the_flags_hold() -> None:
    start = Start("Hi")
    words = ("--temperature", "0.5", "--seed", "7", "--max-tokens", "9", "--presence-penalty", "1.5")
    assert start.run(*words, "--stop", "a,b", "--stop", "c") == 0
    options = start.asked[1]
    assert (options.temperature, options.seed, options.max_new_tokens) == (0.5, 7, 9)
    assert options.presence_penalty == 1.5


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--no-history", "-c"), 2, "--no-history has no place beside --continue"),
        (("--temperature", "hot"), 2, "--temperature is 'hot'"),
        (("--approve", "all"), 2, "--approve has no place without tools"),
        (("--functions", "none.py"), 2, "none.py"),
        (("--think",), 2, "think"),
        (("--choose",), 2, "no terminal to choose on"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words: tuple[str, ...], code: int, said: str) -> None:
    start = Start("Hi")
    assert start.run(*words) == code
    assert said in start.stderr.text and start.stderr.text.count("\n") == 1
    assert start.stdout.text == ""


def test_a_model_that_cannot_be_opened_ends_the_start() -> None:
    start = Start("Hi")
    start.failure = ModelNotFound("No such model.", "Pull it.")
    assert start.run("--model", "nope") == 3
    assert start.stderr.text == "error: No such model. Pull it.\n"
    assert start.input.closed == 1


def test_a_switch_that_fails_or_is_stopped_keeps_the_old_model() -> None:
    def fails() -> str:
        start.failure = ModelNotFound("No such model.")
        return "/switch nope"

    def stops() -> str:
        start.failure, start.stops = None, True
        return "/switch large"

    start = Start("Hi", fails, stops, "Again?", replies=("Hello.", "Fine."), person=True)
    assert start.run("--model", "old") == 0
    assert "Hello.\n\nFine.\n" in start.stdout.text
    assert "error: No such model." in start.stderr.text
    assert "The loading of large was stopped." in start.stderr.text
    assert [one.info.ref for one in start.models] == ["old"]


def test_another_model_answers_after_a_switch() -> None:
    start = Start("/switch other", "Hi")
    assert start.run("--model", "old") == 0
    assert [one.info.ref for one in start.models] == ["old", "other"]
    assert start.stdout.text == "Hello.\n"


def test_the_chosen_model_is_opened() -> None:
    start = Start("starter", "Hi", person=True)
    assert start.run("--choose", "--no-history") == 0
    assert start.configs[0].model_id == "starter"
    assert re.search(r"\d+\*  qwen2.5-1.5b ", start.stdout.text)  # the one in use, though it is not here


def test_who_chooses_nothing_leaves() -> None:
    start = Start(EOFError(), person=True)
    assert start.run("--choose") == 0
    assert start.configs == []


def test_functions_are_offered_and_asked_for(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('def add(a: int, b: int) -> int:\n    """Add."""\n    return a + b\n')
    start = Start("/tools", person=True)
    assert start.run("--functions", "mine.py", "--approve", "all", "--no-history") == 0
    assert "add" in start.stdout.text


def test_a_home_that_cannot_be_written_does_not_stop_the_chat(tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("a file")
    start = Start("Hi")
    assert start.run() == 0
    assert start.stdout.text == "Hello.\n" and "Nothing of this chat is stored" in start.stderr.text
    assert Start("Hi").run("-c") == 6


def test_a_bug_is_one_line_and_with_debug_a_traceback() -> None:
    start = Start("Hi")
    start.failure = ZeroDivisionError("oops")
    assert start.run() == 1
    assert start.stderr.text == "error: ZeroDivisionError: oops (run again with --debug for the traceback)\n"
    start = Start("Hi")
    start.failure = ZeroDivisionError("oops")
    assert start.run("--debug") == 1
    assert "Traceback" in start.stderr.text
