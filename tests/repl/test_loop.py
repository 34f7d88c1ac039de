"""The loop of both REPLs, on a scripted model: what is asked, what is shown, and how it ends."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from chat.chatting import FailingArchive, make_archive
from llm_local.errors import EngineError, InvalidRequest, StorageError
from llm_local.repl.loop import TWICE_S
from llm_local.terminal.chat_signals import Ended
from repl.chats import Chat
from terminal.fake_streams import FakeRaw

WELCOME = (
    "scripted: 1 parameters, float32, on cpu, context 4096 tokens, loaded in 0.5 s\n"
    "Nothing of this chat is stored.\n"
    '/help lists the commands, """ begins and ends several lines, Ctrl-D leaves.\n\n'
)


def test_a_person_asks_and_is_answered() -> None:
    chat = Chat("Hi", "", "  ", "And you?", replies=["Hello.", "Fine."])
    assert chat.run() == 0
    assert chat.stdout.text == f"{WELCOME}Hello.\n\nFine.\n\n"
    assert chat.stderr.text == ""
    assert chat.roles == [
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("user", "And you?"),
        ("assistant", "Fine."),
    ]


def test_a_pipe_gets_the_answers_alone() -> None:
    chat = Chat("Hi", "/models no-such", "", "And you?", replies=["Hello.", "Fine."], person=False)
    assert chat.run() == 0
    assert chat.stdout.text == "Hello.\nFine.\n"


def test_statistics_by_flag_and_by_command() -> None:
    chat = Chat(
        "a", "/set verbose off", "b", "/verbose", "c", replies=["1", "2", "3"], person=False, verbose=True
    )
    assert chat.run() == 0
    assert chat.stdout.text == "1\n2\n3\n"
    lines = chat.stderr.text.splitlines()
    assert [line.split(" tokens in")[0] for line in lines] == ["2", "verbose: off", "verbose: on", "2"]


@pytest.mark.parametrize("word", ["/bye", "/quit", "/exit"])
def test_leaving_by_word(word: str) -> None:
    chat = Chat(word, "never asked")
    assert chat.run() == 0 and chat.input.said == ["never asked"]


def test_an_unknown_command_is_never_sent() -> None:
    chat = Chat("/hlep", "//etc is a folder", " /help me", replies=["Yes.", "No."])
    assert chat.run() == 0
    assert chat.stderr.text == (
        "error: There is no command /hlep. Did you mean /help? /help lists all; // sends a text that begins with a "
        "slash.\n"
    )
    assert [content for role, content in chat.roles if role == "user"] == ["/etc is a folder", " /help me"]


def test_ctrl_c_twice_at_an_empty_line_leaves() -> None:
    chat = Chat(KeyboardInterrupt(), KeyboardInterrupt(), "never asked")
    assert chat.run() == 130
    assert chat.stderr.text == "Ctrl-C again leaves, and so do Ctrl-D and /bye.\n"


def test_ctrl_c_twice_with_time_or_a_question_between_stays() -> None:
    def later() -> str:
        chat.clock.advance(TWICE_S + 0.1)
        raise KeyboardInterrupt

    chat = Chat(KeyboardInterrupt(), later, "Hi", KeyboardInterrupt(), "/bye", replies=["Hello."])
    assert chat.run() == 0
    assert chat.stderr.text.count("again leaves") == 3


def test_the_end_of_the_chat_by_signal() -> None:
    def terminated() -> str:
        chat.signals.code = 143
        raise Ended

    chat = Chat(terminated)
    assert chat.run() == 143


class _Interrupting(FakeRaw):
    """Presses a key when the first words are out."""

    def __init__(self, press, **details) -> None:
        super().__init__(**details)
        self.press = press

    def write(self, data) -> int:
        taken = super().write(data)
        if b"Hel" in bytes(data) or bytes(data) == b"H":
            self.press()
        return taken


def test_ctrl_c_stops_the_answer_and_keeps_the_part(tmp_path: Path) -> None:
    stdout = _Interrupting(lambda: chat.signals._handle(2, None), terminal=True)
    archive = make_archive(tmp_path)
    chat = Chat("Hi", "Again?", replies=["Hello there.", "Yes."], stdout=stdout, archive=archive)
    assert chat.run() == 0
    part = chat.roles[1][1]
    assert part and "Hello there.".startswith(part) and part != "Hello there."
    assert f"{part}\n\nYes.\n" in stdout.text
    assert chat.stderr.text == "[stopped here; what came is kept]\n"
    kept = archive.messages(chat.session.conversation.id)
    assert [(one.message.content, one.status) for one in kept][1] == (part, "interrupted")


def test_ctrl_c_in_a_pipe_leaves_after_keeping_the_part() -> None:
    stdout = _Interrupting(lambda: chat.signals._handle(2, None))
    chat = Chat("Hi", "Again?", replies=["Hello there.", "Yes."], stdout=stdout, person=False)
    assert chat.run() == 130
    assert chat.input.said == ["Again?"]
    assert stdout.text == chat.roles[1][1] + "\n"


def test_termination_during_an_answer_keeps_the_part_and_leaves() -> None:
    stdout = _Interrupting(lambda: chat.signals._handle(15, None), terminal=True)
    chat = Chat("Hi", "Again?", replies=["Hello there.", "Yes."], stdout=stdout)
    assert chat.run() == 143
    assert chat.input.said == ["Again?"] and chat.roles[1][0] == "assistant"


def test_an_answer_that_fails_is_told_and_the_chat_goes_on() -> None:
    replies = [[*b"Hel", EngineError("The engine broke.", "Try again.")], "Fine."]
    chat = Chat("Hi", "And now?", replies=replies)
    assert chat.run() == 0
    assert "Hel\n\nFine.\n" in chat.stdout.text
    assert chat.stderr.text == "error: The engine broke. Try again.\n"


def test_a_pipe_ends_with_the_code_of_the_first_failure() -> None:
    replies = ["Fine.", [EngineError("The engine broke.")], "Fine."]
    chat = Chat("a", "b", "/nothing", "c", replies=replies, person=False)
    assert chat.run() == 1
    assert chat.stdout.text == "Fine.\nFine.\n"
    chat = Chat(InvalidRequest("Too long."), "a", replies=["Fine."], person=False)
    assert chat.run() == 2
    assert (chat.stdout.text, chat.stderr.text) == ("Fine.\n", "error: Too long.\n")


def test_a_question_that_does_not_fit_is_refused_and_forgotten() -> None:
    chat = Chat("x" * 5000, "Hi", replies=["Hello."])
    assert chat.run() == 0
    assert "context length is 4096 tokens" in chat.stderr.text
    assert chat.roles == [("user", "Hi"), ("assistant", "Hello.")]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(BrokenPipeError(), BrokenPipeError), (OSError(errno.ENOSPC, "No space left"), StorageError)],
)
def test_when_stdout_refuses_what_came_is_kept_and_the_chat_ends(
    error: OSError, raised: type[Exception], tmp_path: Path
) -> None:
    stdout = FakeRaw(room=3, error=error)
    archive = make_archive(tmp_path)
    chat = Chat("Hi", "more", replies=["Hello there."], person=False, stdout=stdout, archive=archive)
    with pytest.raises(raised):
        chat.run()
    assert chat.input.said == ["more"]
    kept = archive.messages(chat.session.conversation.id)
    assert [one.status for one in kept] == ["complete", "interrupted"]


def test_the_last_question_is_edited_in_the_line() -> None:
    chat = Chat("Hi", "/edit", "Hi there", replies=["Hello.", "Hello you."], can_edit=True)
    assert chat.run() == 0
    assert chat.input.contexts[2].initial == "Hi"
    assert chat.roles == [("user", "Hi there"), ("assistant", "Hello you.")]


@pytest.mark.parametrize("said", ["", EOFError(), KeyboardInterrupt()])
def test_an_edit_that_is_given_up_changes_nothing(said: str | BaseException) -> None:
    chat = Chat("Hi", "/edit", said, replies=["Hello."], can_edit=True)
    assert chat.run() == 0
    assert chat.roles == [("user", "Hi"), ("assistant", "Hello.")]
    assert "Nothing was changed." in chat.stderr.text


def test_where_a_line_cannot_be_edited_the_command_says_how_else() -> None:
    chat = Chat("Hi", "/edit", replies=["Hello."])
    assert chat.run() == 0
    assert "Hi" in chat.stdout.text.split("Hello.\n\n")[1]


def test_the_end_of_the_chat_while_something_is_asked(tmp_path: Path) -> None:
    def terminated() -> str:
        chat.signals.code = 143
        raise Ended

    file = tmp_path / "chat.json"
    file.write_text("old")
    chat = Chat("Hi", f"/save {file}", terminated, "never asked", replies=["Hello."])
    assert chat.run() == 143
    assert file.read_text() == "old" and chat.input.said == ["never asked"]


@pytest.mark.parametrize(("said", "content"), [("y", "{"), ("n", "old")])
def test_an_existing_file_is_asked_about(tmp_path: Path, said: str, content: str) -> None:
    file = tmp_path / "chat.json"
    file.write_text("old")
    chat = Chat("Hi", f"/save {file}", said, replies=["Hello."])
    assert chat.run() == 0
    assert file.read_text()[: len(content)] == content


def test_a_pipe_never_writes_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text("old")
    chat = Chat("Hi", f"/save {file}", replies=["Hello."], person=False)
    assert chat.run() == 2 and file.read_text() == "old"
    assert chat.stderr.text == (
        f"error: {file} is there already. Overwrite it? Nobody is there to say yes, so it was not done.\n"
    )


def test_tab_and_the_status_come_with_each_prompt(tmp_path: Path) -> None:
    chat = Chat("Hi", "", replies=["Hello."], archive=make_archive(tmp_path))
    chat.run()
    first, second = chat.input.contexts[:2]
    assert [one.text for one in first.complete("/verb")] == ["/verbose"]
    assert first.status is not None and second.status is not None
    assert (first.status.num_turns, first.status.context_used, first.status.title) == (0, None, "")
    assert (second.status.num_turns, second.status.title, second.status.is_stored) == (1, "Hi", True)
    assert second.status.context_used is not None and second.status.context_used > 6


def test_a_plug_ins_bug_does_not_end_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat("/stats", "Hi", replies=["Hello."])
    command = chat.loop._context.table.find("stats")
    monkeypatch.setattr(type(command), "run", property(lambda self: 1 / 0))
    assert chat.run() == 0
    assert "error: ZeroDivisionError" in chat.stderr.text and "Hello." in chat.stdout.text


def test_models_are_compared_one_after_the_other() -> None:
    chat = Chat("Hi", "/compare scripted,temperature=0 scripted,top_k=3", replies=["One.", "Two.", "Three."])
    assert chat.run() == 0
    shown = chat.stdout.text
    assert shown.index("One.") < shown.index("Two.") < shown.index("Three.") < shown.index("tokens/s")
    assert "1 of 2" in chat.stderr.text and "2 of 2" in chat.stderr.text


def test_leaving_with_what_is_not_saved_says_so(tmp_path: Path) -> None:
    archive: Any = FailingArchive(make_archive(tmp_path))
    archive.full = True
    chat = Chat("Hi", replies=["Hello."], archive=archive)
    assert chat.run() == 0
    assert chat.stderr.text.endswith("The conversation is not saved whole, and is lost so far.\n")
    after = chat.input.contexts[-1].status
    assert after is not None and not after.is_stored
