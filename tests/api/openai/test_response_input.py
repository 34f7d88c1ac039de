"""Items of the Responses API as a conversation."""

from __future__ import annotations

from typing import Any

import pytest

from llm_local.api.bodies import validate
from llm_local.api.openai.response_input import response_work
from llm_local.api.openai.response_schemas import ResponsesRequest
from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.options import Constraint
from llm_local.service import Caller, Work

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}
CALL = {"type": "function_call", "call_id": "call_abcdefgh1", "name": "f", "arguments": '{"city": "Rome"}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_abcdefgh1", "output": "sunny"}


def work(*, capped: bool = True, **fields: Any) -> Work:
    return response_work(
        validate(ResponsesRequest, {"model": "m", "input": "Hi", **fields}), Caller("me"), capped=capped
    )


def conversation(*items: dict[str, Any]) -> tuple[Message, ...]:
    messages = work(input=list(items)).messages
    assert messages is not None
    return messages


def test_a_text_is_the_users() -> None:
    assert work().messages == (Message("user", "Hi"),)
    assert work(instructions="Be brief.").messages == (Message("system", "Be brief."), Message("user", "Hi"))
    assert dict(work().changes) == {}
    assert work(capped=False).changes == {"max_new_tokens": None}


def test_messages_with_and_without_their_type() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    said = [{"type": "output_text", "text": "c", "annotations": []}]
    found = conversation(
        {"role": "developer", "content": "s"},
        {"type": "message", "role": "user", "content": parts},
        {"id": "msg_1", "status": "completed", "type": "message", "role": "assistant", "content": said},
        {"role": "assistant", "content": "d"},
    )
    assert found == (
        Message("system", "s"), Message("user", "a\nb"), Message("assistant", "c"), Message("assistant", "d"),
    )  # fmt: skip


def test_reasoning_text_and_calls_of_one_turn_are_one_message() -> None:
    found = conversation(
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Ask."}]},
        {"role": "assistant", "content": "Let me see."},
        CALL,
        OUTPUT,
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
        {"role": "assistant", "content": "Sunny."},
    )
    call = ToolCall("abcdefgh1", "f", {"city": "Rome"})
    assert found == (
        Message("user", "Weather?"),
        Message("assistant", "Let me see.", reasoning="Ask.", tool_calls=(call,)),
        Message("tool", "sunny", name="f", tool_call_id="abcdefgh1"),
        Message("assistant", "Sunny."),
    )


def test_options_formats_and_tools() -> None:
    assert work(max_output_tokens=20, temperature=0, top_p=0.5).changes == {
        "max_new_tokens": 20, "temperature": 0, "top_p": 0.5,
    }  # fmt: skip
    schema = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    assert work(text=schema).changes == {"constraint": Constraint("json_schema", SCHEMA)}
    assert work(text={"format": {"type": "json_object"}}).changes == {"constraint": Constraint("json")}
    assert work(text={}).changes == {}
    assert work(reasoning={"effort": "high", "summary": "auto"}).changes == {"think": "high"}
    assert work(include=["message.output_text.logprobs"], top_logprobs=2).changes == {
        "logprobs": True, "top_logprobs": 2,
    }  # fmt: skip
    chosen = work(tools=[TOOL], tool_choice={"type": "function", "name": "f"})
    assert chosen.tools == (ToolDefinition("f", "", SCHEMA, strict=True),)
    assert chosen.changes == {"tool_choice": "f"}
    assert work(truncation="auto").policy == "trim-oldest"
    assert work(truncation="disabled").policy == "refuse"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"content": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{**CALL, "arguments": "["}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{**OUTPUT, "output": None}]}, "input[0].output"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"input": [{"role": "user", "content": "x"}] * 4097}, "input"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"truncation": "middle"}, "truncation"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        work(**fields)
    assert caught.value.param == param
