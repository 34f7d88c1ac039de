"""The tools of a chat: which of them a question has, and who allows their calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes import ScriptedStream
from llm_local.errors import InvalidRequest
from llm_local.events import Delta, Finish, Timings, ToolCallEvent, Usage
from llm_local.messages import Message, ToolCall
from llm_local.options import GenerationOptions
from llm_local.repl.tools import OpenTools, open_tools
from llm_local.terminal.tool_flags import ToolRequest
from llm_local.terminal.tool_question import ToolAnswer

FUNCTIONS = '''
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b

def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello {name}"
'''
CALL = ToolCall("1", "add", {"a": 1, "b": 2})


class Model:
    """Calls `add` once, then answers; remembers what it was offered."""

    def __init__(self) -> None:
        self.offered: list[tuple[list[str], str]] = []

    def __call__(self, messages, options, *, tools):
        self.offered.append(([tool.name for tool in tools], options.tool_choice))
        if any(message.role == "tool" for message in messages):
            return ScriptedStream([Delta("content", "Done."), Finish("stop", Usage(), Timings())])
        return ScriptedStream([ToolCallEvent(CALL), Finish("tool_calls", Usage(), Timings())])


@pytest.fixture
def request_of(tmp_path: Path):
    (tmp_path / "mine.py").write_text(FUNCTIONS)

    def make(choice: str = "auto", file: str = "mine.py") -> ToolRequest:
        return ToolRequest((str(tmp_path / file),), (), (), {"max_rounds": 3}, "ask", choice)

    return make


def ask(tools: OpenTools, model: Model, names: set[str]) -> list[str]:
    """The outcomes of the calls of one question."""
    run = tools.loop(model, [Message("user", "Add.")], GenerationOptions(), names)
    for _ in run:
        pass
    return [result.outcome for result in run.answer.results]


def test_always_means_the_whole_chat_and_yes_one_call(request_of) -> None:
    answers = [ToolAnswer(True), ToolAnswer(False), ToolAnswer(True, always=True)]
    asked = []

    def person(call: ToolCall, source: str) -> ToolAnswer:
        asked.append((call.name, source))
        return answers.pop(0)

    with open_tools(request_of(), person, None) as tools:
        assert [offer.name for offer in tools.offers] == ["add", "greet"]
        outcomes = [ask(tools, Model(), {"add"}) for _ in range(5)]
    assert outcomes == [["ok"], ["denied"], ["ok"], ["ok"], ["ok"]]
    assert asked == [("add", "function of mine.py")] * 3


@pytest.mark.parametrize(
    ("choice", "names", "first"),
    [
        ("auto", {"add", "greet"}, "auto"),
        ("required", {"add"}, "required"),
        ("add", {"add", "greet"}, "add"),
        ("greet", {"add"}, "auto"),  # switched off meanwhile
    ],
)
def test_a_question_has_the_tools_that_are_on(request_of, choice: str, names: set[str], first: str) -> None:
    model = Model()
    with open_tools(request_of(choice), lambda call, source: ToolAnswer(True), None) as tools:
        assert ask(tools, model, names) == ["ok"]
    assert model.offered == [(sorted(names), first), (sorted(names), "auto")]


@pytest.mark.parametrize(("choice", "file"), [("divide", "mine.py"), ("auto", "none.py")])
def test_what_is_not_there_is_refused_before_the_chat(request_of, choice: str, file: str) -> None:
    with (
        pytest.raises(InvalidRequest),
        open_tools(request_of(choice, file), lambda call, source: ToolAnswer(True), None),
    ):
        pytest.fail("opened")
