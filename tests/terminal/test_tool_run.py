"""The one-shot run with tools, on scripted replies: what is said where, what is counted, and how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fakes import ScriptedStream
from llm_local.errors import ContextLengthExceeded, EngineError, LocalLLMError
from llm_local.events import (
    Completion,
    Delta,
    Event,
    Finish,
    Timings,
    ToolCallEvent,
    ToolResult,
    Usage,
)
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.options import GenerationOptions
from llm_local.terminal.asking import OpenModel
from llm_local.terminal.exit_codes import INTERRUPTED
from llm_local.terminal.one_shot import OneShot
from llm_local.terminal.report import joined_replies
from llm_local.terminal.signals import StopSignals
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tool_run import tool_line
from terminal.fake_streams import FakeRaw
from terminal.test_flags import script  # noqa: F401  (a fixture)
from terminal.test_one_shot import INFO, FakeGenerator

ADD = ToolCall("abcdefghi", "add", {"a": 1, "b": 2})
FILE = """
def add(a: int, b: int) -> int:
    "Add."
    return a + b

def shout(text: str) -> str:
    return text + "\\x1b[2J" * 100
"""


def called(*calls: ToolCall, text: str = "") -> list[Event | LocalLLMError]:
    said: list[Event | LocalLLMError] = [Delta("content", text)] if text else []
    return [*said, *map(ToolCallEvent, calls), Finish("tool_calls", Usage(10, 4, 3), Timings(prefill_s=1))]


def answered(text: str = "It is 3.") -> list[Event | LocalLLMError]:
    return [Delta("content", text), Finish("stop", Usage(20, 10, 2), Timings(prefill_s=2, first_token_s=9))]


class Rounds(FakeGenerator):
    """One scripted reply after the other."""

    def __init__(self, replies: Sequence[Sequence[Event | LocalLLMError]]) -> None:
        super().__init__((), ("a notice",))
        self.replies = list(replies)
        self.talks: list[list[Message]] = []
        self.rounds: list[GenerationOptions] = []
        self.tools: list[str] = []

    def prepare_chat(  # type: ignore[override]
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        *,
        tools: Sequence[ToolDefinition],
        reserve_explicit: bool,
    ) -> Any:
        self.talks.append(list(messages))
        self.rounds.append(options)
        self.tools = [tool.name for tool in tools]
        return super().prepare_chat(messages, options, reserve_explicit=reserve_explicit)

    def stream(self, prepared: Any) -> ScriptedStream:
        events = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(events, list) and isinstance(events[0], ContextLengthExceeded):
            raise events[0]
        return ScriptedStream(events)


class Bench:
    """Everything around one run."""

    def __init__(self, script: ModuleType, stdin: int, *replies: Sequence[Event | LocalLLMError]) -> None:  # noqa: F811
        self._script = script
        self._stdin = stdin
        self.stdout, self.stderr = FakeRaw(), FakeRaw()
        self.generator = Rounds(replies)
        self.opened = False
        self.signals = StopSignals(Messages(self.stderr))

    def run(self, *words: str) -> int:
        messages = Messages(self.stderr)
        self.signals = StopSignals(messages)
        shot = OneShot(
            AnswerWriter(self.stdout),
            messages,
            self.signals,
            stdin=self._stdin,
            opener=self._open,
            open_tools=self._script.make_parser.__globals__["open_tools"],  # of the same door
        )
        return shot.run(self._script.make_parser().parse(words))

    def _open(self, config: Any, on_progress: Any) -> OpenModel:
        self.opened = True
        return OpenModel(self.generator, INFO, {}, 0.5)  # type: ignore[arg-type]


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(
    script: ModuleType,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MakeBench]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE)
    before = dict(os.environ)
    stdin = os.open(os.devnull, os.O_RDONLY)
    yield lambda *replies: Bench(script, stdin, *replies)
    os.close(stdin)
    os.environ.clear()
    os.environ.update(before)


WITH = ("--functions", "mine.py", "--approve", "all", "--temperature", "0")


def test_the_answer_is_on_stdout_and_the_call_on_stderr(bench: MakeBench) -> None:
    run = bench(called(ADD), answered())
    assert run.run("1 + 2?", "-s", "Be brief.", *WITH) == 0
    assert run.stdout.text == "It is 3.\n"
    first, second = run.stderr.text.splitlines()
    assert first == "a notice"
    assert second.startswith('tool add {"a": 1, "b": 2}: ok in ') and second.endswith(": 3")
    assert run.generator.tools == ["add", "shout"]
    assert [(one.role, one.content) for one in run.generator.talks[1]] == [
        ("system", "Be brief."),
        ("user", "1 + 2?"),
        ("assistant", ""),
        ("tool", "3"),
    ]


@pytest.mark.parametrize("flags", [(), ("--no-stream",), ("--json",)])
@pytest.mark.parametrize(
    ("first", "last", "whole"),
    [
        ("Let me see.", "It is 3.", "Let me see.\nIt is 3."),
        ("Let me see.\n", "It is 3.\n", "Let me see.\nIt is 3.\n"),
        ("", "It is 3.", "It is 3."),
        ("Let me see.", "", "Let me see."),
    ],
)
def test_streamed_whole_and_json_say_the_same(
    bench: MakeBench, flags: tuple[str, ...], first: str, last: str, whole: str
) -> None:
    run = bench(called(ADD, text=first), answered(last))
    assert run.run("Hi", *WITH, *flags) == 0
    if "--json" in flags:
        assert json.loads(run.stdout.text)["text"] == whole
    else:
        assert run.stdout.text == whole.removesuffix("\n") + "\n"


def test_json_tells_every_call_and_every_reply_and_sums_them(bench: MakeBench) -> None:
    run = bench(called(ADD, ToolCall("id2", "add", {"a": "x"})), answered())
    assert run.run("Hi", *WITH, "--json", "--tool-choice", "add", "--show-prompt") == 0
    report = json.loads(run.stdout.text)
    assert report["usage"] == {
        "prompt_tokens": 30,
        "cached_tokens": 14,
        "completion_tokens": 5,
        "drafted_tokens": 0,
        "accepted_tokens": 0,
        "replayed_tokens": 0,
        "total_tokens": 35,
    }
    assert report["timings"]["prefill_s"] == 3 and report["timings"]["first_token_s"] == 0
    assert report["finish_reason"] == "stop"
    assert [one["finish_reason"] for one in report["rounds"]] == ["tool_calls", "stop"]
    assert [one["usage"]["prompt_tokens"] for one in report["rounds"]] == [10, 20]
    assert report["rounds"][0]["tool_calls"] == ["abcdefghi", "id2"]
    good, bad = report["tool_calls"]
    assert good.pop("run_s") > 0
    assert good == {
        "id": "abcdefghi",
        "name": "add",
        "arguments": {"a": 1, "b": 2},
        "source": "function of mine.py",
        "outcome": "ok",
        "result": "3",
        "omitted_chars": 0,
    }
    assert (bad["outcome"], bad["run_s"]) == ("invalid", 0)
    assert report["options"]["tool_choice"] == "add"
    assert report["notices"] == ["a notice"]
    assert report["prompt"].startswith("<") and run.stderr.text.count("--- end of prompt ---") == 2
    assert [one.tool_choice for one in run.generator.rounds] == ["add", "auto"]


def test_verbose_counts_replies_and_calls(bench: MakeBench) -> None:
    run = bench(called(ADD), answered())
    run.run("Hi", *WITH, "--verbose")
    assert "replies: 2, calls: 1" in run.stderr.text
    assert "prompt: 30 tokens (14 cached)" in run.stderr.text


def test_a_model_that_never_answers_ends_with_1(bench: MakeBench) -> None:
    run = bench(called(ADD))
    assert run.run("Hi", *WITH, "--max-tool-rounds", "2") == 1
    assert run.stderr.text.count("tool add") == 3
    assert "still called tools in reply 3" in run.stderr.text and "--max-tool-rounds" in run.stderr.text
    run = bench(called(ADD))
    assert run.run("Hi", *WITH, "--max-tool-rounds", "1", "--json") == 1
    report = json.loads(run.stdout.text)
    assert report["finish_reason"] == "tool_calls"
    assert [one["outcome"] for one in report["tool_calls"]] == ["ok", "over_limit"]
    assert "still called" in report["notices"][-1]


def test_nothing_runs_unless_somebody_says_so(bench: MakeBench) -> None:
    run = bench(called(ADD), answered("I may not."))
    assert run.run("Hi", *WITH[:2], "--approve", "none") == 0
    assert "add" in run.stderr.text and ": denied: " in run.stderr.text


def test_a_line_about_a_call_is_harmless_and_short(bench: MakeBench) -> None:
    call = ToolCall("abcdefghi", "shout", {"text": "a\n\x1b[31m" * 999})
    run = bench(called(call), answered())
    run.run("Hi", *WITH)
    (line,) = [one for one in run.stderr.text.splitlines() if one.startswith("tool")]
    assert "\x1b" not in run.stderr.text and len(line) < 800


def test_the_line_of_a_call_says_what_became_of_it() -> None:
    result = ToolResult(ADD, "function", "timed_out", "late", omitted_chars=7, run_s=1.5)
    assert tool_line(result) == (
        'tool add {"a": 1, "b": 2}: timed out in 1.50 s, 7 characters left out: late'
    )


def test_mistakes_are_found_before_the_model_is_opened(bench: MakeBench) -> None:
    for words in (
        ["--functions", "none.py"],
        ["--functions", "mine.py", "--functions", "mine.py"],
        ["--functions", "mine.py", "--tool-choice", "sub"],
        ["--tool", "nothing"],
        ["--mcp", "'"],
        ["--functions", "mine.py", "--raw"],
    ):
        run = bench(answered())
        assert run.run("Hi", *words) == 2, words
        assert not run.opened and run.stderr.text.count("\n") == 1


def test_a_signal_during_a_reply_keeps_what_there_is(bench: MakeBench) -> None:
    run = bench(answered())

    def events() -> Iterator[Event]:
        yield Delta("content", "Hel")
        yield ToolCallEvent(ADD)
        run.signals.code = INTERRUPTED  # what the handler of a real signal does
        assert run.signals.on_stop
        run.signals.on_stop()
        yield Delta("content", "lo.")

    run.generator.replies = [events()]  # type: ignore[list-item]
    assert run.run("Hi", *WITH) == 130
    assert run.stdout.text == "Hel\n"
    assert ": cancelled: " in run.stderr.text and run.stderr.text.endswith("interrupted\n")


def test_a_failure_after_a_call_is_one_line(bench: MakeBench) -> None:
    run = bench(called(ADD, text="Wait."), [EngineError("It broke.")])
    assert run.run("Hi", *WITH) == 1
    assert run.stdout.text == "Wait.\n"
    assert run.stderr.text.endswith("error: It broke.\n")


def test_results_that_do_not_fit_say_so(bench: MakeBench) -> None:
    error = ContextLengthExceeded(prompt_tokens=999, reserve=1, context_length=512)
    run = bench(called(ADD), [error])
    assert run.run("Hi", *WITH) == 2
    assert "results of tools" in run.stderr.text


def test_a_cut_reply_is_told(bench: MakeBench) -> None:
    cut: list[Event | LocalLLMError] = [ToolCallEvent(ADD), Finish("length", Usage(1, 0, 9), Timings())]
    run = bench(cut, answered())
    assert run.run("Hi", *WITH) == 0
    assert "Reply 1 was cut after 9 tokens" in run.stderr.text


def test_a_door_without_tools_says_so(bench: MakeBench, script: ModuleType) -> None:  # noqa: F811
    stderr = FakeRaw()
    messages = Messages(stderr)
    with open(os.devnull, "rb") as nothing:
        shot = OneShot(AnswerWriter(FakeRaw()), messages, StopSignals(messages), stdin=nothing.fileno())
        assert shot.run(script.make_parser().parse(["Hi", *WITH])) == 2
    assert "Tools cannot be used here" in stderr.text


def test_one_reply_joined_is_itself() -> None:
    one = Completion("a", "r", (ADD,), (1,), (), "stop", Usage(1, 0, 1), Timings(1, 2, 3, 4, 5))
    assert joined_replies([one]) == one
    two = joined_replies([one, one])
    assert (two.text, two.reasoning, two.token_ids) == ("a\na", "r\nr", (1, 1))
    assert two.timings == Timings(2, 4, 6, 8, 5)
