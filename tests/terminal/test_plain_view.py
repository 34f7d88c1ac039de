"""What a chat says in plain lines: what goes where, in a pipe and on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from llm_local.errors import InvalidRequest
from llm_local.events import (
    Completion,
    ContextTrimmed,
    Delta,
    Event,
    Finish,
    FinishReason,
    Progress,
    Timings,
    ToolEvent,
    ToolResult,
    ToolStarted,
    Usage,
)
from llm_local.messages import ToolCall
from llm_local.specs import ModelInfo
from llm_local.terminal.chat_view import ChatStatus, Choice
from llm_local.terminal.plain_view import PlainView
from llm_local.terminal.streams import AnswerWriter, Messages
from terminal.fake_streams import FakeRaw

INFO = ModelInfo("starter", "/x", "llama", 3_000_000, 6, "float32", "cpu", 100, 512, True)
USAGE, TIMINGS = Usage(20, 15, 5), Timings(0.0, 0.0, 0.5, 2.0, 0.6)


def completion(text: str = "Hello.", reason: FinishReason = "stop") -> Completion:
    return Completion(text, "", (), (), (), reason, USAGE, TIMINGS)


class Screen:
    """A view, and what it wrote. `said` is what a person will answer; None where there is no person."""

    def __init__(
        self,
        said: Sequence[str | BaseException] | None = None,
        *,
        thinking: bool = False,
        terminal: bool = True,
    ) -> None:
        person = said is not None
        self.stdout = FakeRaw(terminal=person and terminal)
        self.stderr = FakeRaw(terminal=person)
        self.questions: list[str] = []
        self._said = list(said or ())
        self.view = PlainView(
            AnswerWriter(self.stdout),
            Messages(self.stderr),
            read_line=self._read if person else None,
            show_thinking=thinking,
        )

    def _read(self, question: str) -> str:
        self.questions.append(question)
        said = self._said.pop(0)
        if isinstance(said, BaseException):
            raise said
        return said

    def answer(self, *events: Event | ToolEvent, end: Completion | None, verbose: bool = False) -> None:
        self.view.begin_reply()
        for event in events:
            self.view.show(event)
        self.view.end_reply(end, verbose=verbose)

    @property
    def both(self) -> tuple[str, str]:
        return self.stdout.text, self.stderr.text


END = Finish("stop", USAGE, TIMINGS)


def test_a_pipe_gets_answers_and_nothing_else() -> None:
    screen = Screen()
    screen.view.welcome(ChatStatus(INFO, "scripted", 0.5))
    for text in ("one", "two\n", ""):
        screen.answer(Progress("prefill", 3, 3), Delta("content", text), END, end=completion(text))
    screen.view.lines(["from a command"])
    screen.view.table("Models", ("name", "size"), [("starter", "10 MB")])
    screen.view.markdown("# Title")
    screen.view.notice("by the way")
    screen.view.clear()
    assert screen.stdout.text == "one\ntwo\n\n"
    assert screen.stderr.text == (
        "from a command\nModels\nname     size\nstarter  10 MB\n# Title\nby the way\n"
    )


def test_one_turn_is_no_turns() -> None:
    assert ChatStatus(INFO, "scripted", 0.5, num_turns=1, title="Tea").goes_on == "Tea (1 turn)"
    assert ChatStatus(INFO, "scripted", 0.5, num_turns=3).goes_on == ""


def test_a_person_sees_commands_and_answers_in_one_order() -> None:
    screen = Screen([])
    screen.view.welcome(
        ChatStatus(INFO, "scripted", 0.5, num_turns=2, title="About\x1b[2J x", is_stored=False)
    )
    screen.answer(Delta("content", "Hel"), Delta("content", "lo."), END, end=completion())
    screen.view.lines(["from a command"])
    assert screen.stdout.text == (
        "starter: 3,000,000 parameters, float32, on cpu, context 100 tokens, loaded in 0.5 s\n"
        "The conversation goes on: About\\x1b[2J x (2 turns)\n"
        "Nothing of this chat is stored.\n"
        '/help lists the commands, """ begins and ends several lines, Ctrl-D leaves.\n\n'
        "Hello.\n\n"
        "from a command\n"
    )
    assert screen.stderr.text == ""


def test_a_person_whose_answers_go_to_a_file_sees_the_rest() -> None:
    screen = Screen([], terminal=False)
    screen.answer(Delta("content", "Hello."), END, end=completion())
    screen.view.lines(["from a command"])
    assert screen.both == ("Hello.\n", "from a command\n")


@pytest.mark.parametrize(
    ("end", "note"),
    [
        (completion("Hel", "cancelled"), "[stopped here; what came is kept]\n"),
        (
            completion("Hel", "length"),
            "[cut here after 5 tokens: the limit of the answer, or of the context, is reached]\n",
        ),
        (completion("Hel"), ""),
        (None, ""),
    ],
)
def test_an_answer_that_is_not_whole_is_marked_behind_its_line(end: Completion | None, note: str) -> None:
    screen = Screen()
    screen.answer(Delta("content", "Hel"), end=end)
    assert screen.both == ("Hel\n", note)


def test_what_was_stopped_before_its_first_word_is_no_line() -> None:
    screen = Screen()
    screen.answer(Progress("prefill", 1, 9), end=completion("", "cancelled"))
    assert screen.both == ("", "[stopped]\n")


def test_statistics_when_they_are_wanted() -> None:
    screen = Screen()
    screen.answer(Delta("content", "Hello."), END, end=completion(), verbose=True)
    assert screen.stderr.text == (
        "5 tokens in 2.00 s (2.0 tok/s); prompt 20 tokens, 15 of them cached, read in 0.50 s; "
        "first token after 0.60 s\n"
    )


def test_reasoning_is_shown_only_when_wanted() -> None:
    events = (Delta("reasoning", "Hm."), Delta("content", "Yes."), END)
    screen = Screen()
    screen.answer(*events, end=completion("Yes."))
    assert screen.both == ("Yes.\n", "")
    screen = Screen(thinking=True)
    screen.answer(*events, end=completion("Yes."))
    assert screen.both == ("Yes.\n", "--- thinking ---\nHm.\n--- end of thinking ---\n")


def test_tools_and_what_was_left_out_stand_between_the_lines_of_the_answer() -> None:
    call = ToolCall("1", "add", {"a": 1})
    screen = Screen()
    screen.answer(
        ContextTrimmed(2, 40),
        Delta("content", "I add."),
        END,
        ToolStarted(call, "function"),
        ToolResult(call, "function", "ok", "3"),
        Delta("content", "It is 3."),
        END,
        end=completion("It is 3."),
    )
    assert screen.stdout.text == "I add.\nIt is 3.\n"
    assert screen.stderr.text == (
        "The conversation does not fit the context any more: its oldest 2 messages (40 tokens) were left out of the "
        'prompt.\ntool add {"a": 1}: ok: 3\n'
    )


def test_foreign_text_is_harmless_on_a_terminal() -> None:
    screen = Screen([])
    bad = "a\x1b]52;c;eA==\x07b\u202ec"
    good = "a\\x1b]52;c;eA==\\x07b\\u202ec"
    screen.answer(Delta("content", bad), END, end=completion())
    screen.view.lines([bad])
    screen.view.table(bad, (bad,), [(bad,)])
    screen.view.markdown(bad)
    screen.view.verbatim(bad)
    screen.view.notice(bad)
    screen.view.error(InvalidRequest(bad))
    assert "\x1b" not in "".join(screen.both) and "\u202e" not in "".join(screen.both)
    assert screen.stdout.text == f"{good}\n\n" + f"{good}\n" * 6
    assert screen.stderr.text == f"{good}\nerror: {good}\n"


def test_an_error_does_not_stand_in_the_line_of_the_answer() -> None:
    screen = Screen()
    screen.view.begin_reply()
    screen.view.show(Delta("content", "Hel"))
    screen.view.error(InvalidRequest("It broke.", "Try again."))
    assert screen.both == ("Hel\n", "error: It broke. Try again.\n")


@pytest.mark.parametrize(
    ("said", "answer"),
    [("y", True), (" YES ", True), ("n", False), ("", False), ("yessir", False), (EOFError(), False)],
)
def test_only_a_clear_yes_is_one(said: str | BaseException, answer: bool) -> None:
    screen = Screen([said])
    assert screen.view.ask("Overwrite x?") is answer
    assert screen.questions == ["Overwrite x? [y/N] "]


def test_without_a_person_the_answer_is_no() -> None:
    screen = Screen()
    assert screen.view.ask("Overwrite x?") is False
    assert screen.view.copy("x") is False
    assert screen.both == ("", "")
    with pytest.raises(InvalidRequest, match="no terminal"):
        screen.view.choose("Which?", ("model",), [])


CHOICES = [
    Choice("a", ("a", "1 MB")),
    Choice("b/c", ("b/c", "2 MB"), is_current=True),
    Choice("7", ("7", "3 MB")),
]


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        (["1"], "a"),
        (["b/c"], "b/c"),
        ([""], "b/c"),
        (["9", "nothing", "0", "a"], "a"),
        (["7"], "7"),
        ([EOFError()], None),
        ([KeyboardInterrupt()], None),
    ],
)
def test_a_choice_by_number_or_name(said: list[str | BaseException], chosen: str | None) -> None:
    screen = Screen(said)
    assert screen.view.choose("Which model?", ("model", "size"), CHOICES) == chosen
    assert screen.stdout.text.startswith(
        "Which model?\n    model  size\n1   a      1 MB\n2*  b/c    2 MB\n3   7      3 MB\n"
    )
    assert screen.questions[0] == "Number or name, Enter for b/c: "


def test_nothing_is_taken_where_nothing_is_in_use() -> None:
    assert Screen([""]).view.choose("Which?", ("model",), [Choice("a", ("a",))]) is None


@pytest.mark.parametrize(
    "draw", [lambda view: view.table("", ("a",), []), lambda view: view.table("T", ("a",), [])]
)
def test_an_empty_table_says_so(draw: Callable[[PlainView], None]) -> None:
    screen = Screen()
    draw(screen.view)
    assert screen.stderr.text.endswith("(none)\n")


def test_a_table_is_no_wider_than_the_terminal_and_as_wide_as_it_is_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    for screen in (person := Screen([]), pipe := Screen()):
        screen.view.table("", ("name", "what it does"), [("/help", "word " * 9)])
    assert max(map(len, person.stdout.text.splitlines())) <= 30
    assert len(pipe.stderr.text.splitlines()) == 2
