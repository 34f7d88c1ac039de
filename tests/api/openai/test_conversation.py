"""Messages in all the forms that clients send them in."""

from __future__ import annotations

from typing import Any

import pytest

from llm_local.api.bodies import validate
from llm_local.api.openai.conversation import bare_call_id, messages_of, shown_call_id
from llm_local.api.openai.schemas import ChatRequest
from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolCall


def messages(*given: dict[str, Any]) -> tuple[Message, ...]:
    return messages_of(validate(ChatRequest, {"model": "m", "messages": list(given)}).messages)


def call(arguments: Any = "{}", call_id: str = "call_abcdefgh1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_roles() -> None:
    given = [
        {"role": role, "content": "x"} for role in ("system", "developer", "user", "assistant", "function")
    ]
    assert [one.role for one in messages(*given)] == ["system", "system", "user", "assistant", "tool"]


def test_parts_are_lines() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert messages({"role": "user", "content": parts}) == (Message("user", "a\nb"),)
    refusal = [{"type": "refusal", "refusal": "No."}]
    assert messages({"role": "assistant", "content": refusal})[0].content == "No."
    assert messages({"role": "assistant", "refusal": "No."})[0].content == "No."


def test_a_tool_round_trip() -> None:
    found = messages(
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": [call('{"a": 1}')]},
        {
            "role": "tool",
            "tool_call_id": "call_abcdefgh1",
            "name": "f",
            "content": [{"type": "text", "text": "2"}],
        },
    )
    assert found[1] == Message("assistant", "", tool_calls=(ToolCall("abcdefgh1", "f", {"a": 1}),))
    assert found[2] == Message("tool", "2", name="f", tool_call_id="abcdefgh1")


@pytest.mark.parametrize("arguments", ["", "{}", " ", None, {}])
def test_no_arguments(arguments: Any) -> None:
    assert messages({"role": "assistant", "tool_calls": [call(arguments)]})[0].tool_calls[0].arguments == {}


def test_ids_of_calls_come_back_as_we_made_them_and_foreign_ones_as_they_are() -> None:
    assert bare_call_id(shown_call_id("aB3dEfGh9")) == "aB3dEfGh9"
    for foreign in ("call_1", "call_abcdefgh12", "toolu_123456789", "", "call_abcdefgh!"):
        assert bare_call_id(foreign) == foreign


def test_reasoning_comes_back_with_the_answer_it_led_to() -> None:
    for name in ("reasoning_content", "reasoning"):
        found = messages(
            {"role": "assistant", "content": "4", name: "2 and 2"}, {"role": "user", "content": "5?"}
        )
        assert (found[0].content, found[0].reasoning) == ("4", "2 and 2")
    assert messages({"role": "assistant", "content": None, "reasoning_content": "cut"})[0].content == ""
    assert messages({"role": "user", "content": "x", "reasoning": "y"})[0].reasoning is None


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user"}, "messages[1].content"),
        ({"role": "assistant", "content": None}, "messages[1].content"),
        ({"role": "robot", "content": "x"}, "messages[1].role"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]},
            "messages[1].content[0]",
        ),
        ({"role": "assistant", "tool_calls": [call("[1]")]}, "messages[1].tool_calls[0].function.arguments"),
        ({"role": "assistant", "tool_calls": [call("{")]}, "messages[1].tool_calls[0].function.arguments"),
        ({"role": "assistant", "content": "", "function_call": {"name": "f"}}, "messages[1].function_call"),
    ],
)
def test_a_message_that_is_none_is_named(message: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        messages({"role": "user", "content": "x"}, message)
    assert caught.value.param == param
