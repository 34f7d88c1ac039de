"""The loop on scripted replies: every round, every limit, every end; and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fakes import ScriptedStream
from llm_local.errors import ContextLengthExceeded, EngineError, InvalidRequest, LocalLLMError
from llm_local.events import Delta, Event, Finish, Timings, ToolCallEvent, ToolResult, ToolStarted, Usage
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.options import Constraint, GenerationOptions
from llm_local.tools.approval import Approval, allow_all
from llm_local.tools.functions import make_tool
from llm_local.tools.limits import ToolLimits
from llm_local.tools.loop import ToolLoop

ASKED = [Message("user", "What is 1 + 2?")]


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def fail() -> int:
    """Fail."""
    raise ValueError("always")


TOOLS = [make_tool(add), make_tool(fail)]


def called(*calls: ToolCall, text: str = "", reasoning: str = "") -> list[Event]:
    said: list[Event] = [Delta("reasoning", reasoning)] if reasoning else []
    said += [Delta("content", text)] if text else []
    return [*said, *map(ToolCallEvent, calls), Finish("tool_calls", Usage(10, 4, 3), Timings())]


def answered(text: str = "3") -> list[Event]:
    return [Delta("content", text), Finish("stop", Usage(20, 10, 2), Timings())]


def one_and_two(number: int = 1) -> ToolCall:
    return ToolCall(f"id{number}", "add", {"a": 1, "b": 2})


class FakeGenerator:
    """One scripted reply after the other; the last one for ever."""

    def __init__(self, *replies: Sequence[Event | LocalLLMError]) -> None:
        self._replies = list(replies)
        self.messages: list[list[Message]] = []
        self.options: list[GenerationOptions] = []
        self.tools: list[Sequence[ToolDefinition]] = []
        self.streams: list[ScriptedStream] = []

    def __call__(
        self, messages: Sequence[Message], options: GenerationOptions, *, tools: Sequence[ToolDefinition]
    ) -> ScriptedStream:
        self.messages.append(list(messages))
        self.options.append(options)
        self.tools.append(tools)
        events = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        self.streams.append(ScriptedStream(events))
        return self.streams[-1]


def loop(generator: FakeGenerator, options: GenerationOptions | None = None, **details: Any) -> ToolLoop:
    return ToolLoop(
        generator, ASKED, TOOLS, options or GenerationOptions(), **{"approve": allow_all, **details}
    )


def test_a_call_its_result_and_the_answer() -> None:
    generator = FakeGenerator(called(one_and_two(), text="Wait.", reasoning="Hm."), answered())
    run = loop(generator)
    events = list(run)
    kinds = [type(event).__name__ for event in events]
    assert kinds == [
        "Delta",
        "Delta",
        "ToolCallEvent",
        "Finish",
        "ToolStarted",
        "ToolResult",
        "Delta",
        "Finish",
    ]
    answer = run.answer
    assert (answer.text, answer.end, run.end) == ("3", "answered", "answered")
    assert answer.messages == (
        Message("assistant", "Wait.", reasoning="Hm.", tool_calls=(one_and_two(),)),
        Message("tool", "3", name="add", tool_call_id="id1"),
        Message("assistant", "3"),
    )
    assert run.messages == (*ASKED, *answer.messages)
    assert generator.messages == [ASKED, [*ASKED, *answer.messages[:2]]]
    assert generator.tools == [[tool.definition for tool in TOOLS]] * 2


def test_usage_is_the_sum_of_all_rounds() -> None:
    answer = loop(FakeGenerator(called(one_and_two()), called(one_and_two(2)), answered())).run()
    assert [one.usage.total_tokens for one in answer.rounds] == [13, 13, 22]
    assert answer.usage == Usage(prompt_tokens=40, cached_tokens=18, completion_tokens=8)


def test_an_answer_without_calls_is_one_round() -> None:
    answer = loop(FakeGenerator(answered("Hello"))).run()
    assert (answer.text, len(answer.rounds), answer.results, answer.end) == ("Hello", 1, (), "answered")
    assert answer.messages == (Message("assistant", "Hello"),)


def test_several_calls_of_one_reply_run_in_their_order() -> None:
    calls = [one_and_two(1), ToolCall("id2", "fail", {}), ToolCall("id3", "add", {"a": "x"}), one_and_two(4)]
    answer = loop(FakeGenerator(called(*calls), answered())).run()
    assert [one.outcome for one in answer.results] == ["ok", "failed", "invalid", "ok"]
    told = [(one.tool_call_id, one.name, one.content) for one in answer.messages if one.role == "tool"]
    assert told[0] == ("id1", "add", "3")
    assert told[1] == ("id2", "fail", '{"error": "ValueError: always"}')
    assert told[2][:2] == ("id3", "add") and told[2][2].startswith('{"error": "The arguments are not valid: ')
    assert told[3][0] == "id4"


def test_a_call_to_nothing_is_told() -> None:
    answer = loop(FakeGenerator(called(ToolCall("id1", "sub", {})), answered())).run()
    assert [one.outcome for one in answer.results] == ["unknown"]
    assert "no tool 'sub'" in answer.messages[1].content


def test_nobody_asked_nothing_run() -> None:
    generator = FakeGenerator(called(one_and_two()), answered("I may not."))
    answer = ToolLoop(generator, ASKED, TOOLS, GenerationOptions()).run()
    assert [one.outcome for one in answer.results] == ["denied"]
    assert answer.end == "answered"


def test_always_lasts_for_all_rounds() -> None:
    asked: list[str] = []

    def approve(call: ToolCall, tool: Any) -> Approval:
        asked.append(call.id)
        return Approval(True, always=True)

    loop(
        FakeGenerator(called(one_and_two(1), one_and_two(2)), called(one_and_two(3)), answered()),
        approve=approve,
    ).run()
    assert asked == ["id1"]


@pytest.mark.parametrize("most", [1, 3])
def test_a_model_that_never_stops_calling_is_stopped(most: int) -> None:
    generator = FakeGenerator(called(one_and_two()))
    run = loop(generator, limits=ToolLimits(max_rounds=most))
    answer = run.run()
    assert answer.end == "max_rounds"
    assert len(answer.rounds) == most + 1
    assert [one.outcome for one in answer.results] == ["ok"] * most + ["over_limit"]
    assert answer.messages[-1].role == "tool"
    assert (
        answer.messages[-1].content
        == f'{{"error": "Not run, because the limit of {most} rounds of calls is reached."}}'
    )
    calls = [call.id for one in answer.messages for call in one.tool_calls]
    assert calls == [one.tool_call_id for one in answer.messages if one.role == "tool"]


def test_the_limit_of_calls_is_over_all_rounds() -> None:
    replies = called(one_and_two(1), one_and_two(2)), called(one_and_two(3), one_and_two(4)), answered()
    answer = loop(FakeGenerator(*replies), limits=ToolLimits(max_calls=3)).run()
    assert [one.outcome for one in answer.results] == ["ok", "ok", "ok", "over_limit"]
    assert answer.end == "answered"


@pytest.mark.parametrize("choice", ["required", "add"])
def test_a_call_is_demanded_once_and_the_answer_is_constrained(choice: str) -> None:
    constraint = Constraint("choice", ["3"])
    generator = FakeGenerator(called(one_and_two()), called(one_and_two(2)), answered())
    loop(generator, GenerationOptions(tool_choice=choice, constraint=constraint, seed=3)).run()
    assert [(one.tool_choice, one.constraint) for one in generator.options] == [
        (choice, None),
        ("auto", constraint),
        ("auto", constraint),
    ]
    assert {one.seed for one in generator.options} == {3}


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_other_choices_hold_throughout(choice: str) -> None:
    generator = FakeGenerator(called(one_and_two()), answered())
    options = GenerationOptions(tool_choice=choice, constraint=Constraint("json"))
    loop(generator, options).run()
    assert generator.options == [options, options]


def test_cancel_in_a_reply_leaves_no_call_without_a_result() -> None:
    generator = FakeGenerator(called(one_and_two(), text="Wait."), answered())
    run = loop(generator)
    outcomes = []
    for event in run:
        if isinstance(event, ToolCallEvent):
            run.cancel()
        if isinstance(event, ToolResult):
            outcomes.append(event.outcome)
    assert generator.streams[0].cancelled
    assert (run.end, outcomes) == ("cancelled", ["cancelled"])
    assert [one.role for one in run.answer.messages] == ["assistant", "tool"]
    assert len(generator.streams) == 1


def test_a_stream_that_was_cancelled_by_others_ends_the_loop() -> None:
    cut: list[Event] = [ToolCallEvent(one_and_two()), Finish("cancelled", Usage(), Timings())]
    answer = loop(FakeGenerator(cut, answered())).run()
    assert (answer.end, [one.outcome for one in answer.results]) == ("cancelled", ["cancelled"])


def test_cancel_between_calls_and_before_all() -> None:
    run = loop(FakeGenerator(called(one_and_two(1), one_and_two(2)), answered()))
    outcomes = []
    for event in run:
        if isinstance(event, ToolResult):
            outcomes.append(event.outcome)
            run.cancel()
    assert (run.end, outcomes) == ("cancelled", ["ok", "cancelled"])
    run = loop(FakeGenerator(answered()))
    run.cancel()
    assert run.run().end == "cancelled"


def test_a_cancel_that_comes_too_late_takes_nothing_from_the_answer() -> None:
    run = loop(FakeGenerator(answered()))
    for event in run:
        if isinstance(event, Finish):
            run.cancel()
    assert (run.end, run.answer.text) == ("answered", "3")


def test_cancel_while_a_tool_runs() -> None:
    run = loop(FakeGenerator(called(one_and_two()), answered()))
    seen = []
    for event in run:
        seen.append(type(event))
        if isinstance(event, ToolStarted):
            run.cancel()
    assert seen[-2:] == [ToolStarted, ToolResult]
    assert run.answer.results[0].outcome == "cancelled"


def test_a_reply_that_fails_raises_and_what_was_before_is_kept() -> None:
    run = loop(FakeGenerator(called(one_and_two()), [Delta("content", "x"), EngineError("It broke.")]))
    with pytest.raises(EngineError):
        run.run()
    assert run.end is None
    assert [one.role for one in run.answer.messages] == ["assistant", "tool"]


def test_results_that_do_not_fit_are_named() -> None:
    error = ContextLengthExceeded(prompt_tokens=900, reserve=1, context_length=512)
    run = loop(FakeGenerator(called(one_and_two()), [error]))
    with pytest.raises(ContextLengthExceeded, match="results of tools"):
        run.run()
    with pytest.raises(ContextLengthExceeded, match="Shorten the prompt"):
        plain = ContextLengthExceeded(prompt_tokens=900, reserve=1, context_length=512)
        loop(FakeGenerator([plain])).run()


def test_a_cut_reply_s_whole_calls_run() -> None:
    cut: list[Event] = [ToolCallEvent(one_and_two()), Finish("length", Usage(), Timings())]
    answer = loop(FakeGenerator(cut, answered())).run()
    assert [one.finish_reason for one in answer.rounds] == ["length", "stop"]
    assert [one.outcome for one in answer.results] == ["ok"]


def test_a_loop_is_used_once_and_needs_tools_of_different_names() -> None:
    run = loop(FakeGenerator(answered()))
    run.run()
    with pytest.raises(InvalidRequest, match="once"):
        run.run()
    with pytest.raises(InvalidRequest, match="No tools"):
        ToolLoop(FakeGenerator(answered()), ASKED, [], GenerationOptions())
    with pytest.raises(InvalidRequest, match="Two tools"):
        ToolLoop(FakeGenerator(answered()), ASKED, [TOOLS[0], make_tool(add)], GenerationOptions())
