"""Anthropic's requests become our words, and what cannot be done is refused by its own name."""

from __future__ import annotations

from typing import Any

import pytest

from llm_local.api.anthropic.schemas import MessagesRequest
from llm_local.api.anthropic.translate import Thinking, ignored_fields, message_work, thinking_of
from llm_local.api.bodies import validate
from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.options import Constraint
from llm_local.service import Caller, Work

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "It tells.", "input_schema": SCHEMA}


def read(**fields: Any) -> MessagesRequest:
    return validate(MessagesRequest, {"model": "m", "max_tokens": 9, "messages": HELLO, **fields})


def work(**fields: Any) -> Work:
    return message_work(read(**fields), Caller("local"))


def turns(*messages: tuple[str, Any], **fields: Any) -> tuple[Message, ...] | None:
    given = [{"role": role, "content": content} for role, content in messages]
    return work(messages=given, **fields).messages


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        work(**fields)
    return caught.value


def test_what_is_left_open_stays_open() -> None:
    found = work()
    assert (found.model, found.messages, found.tools) == ("m", (Message("user", "Hello"),), ())
    assert found.changes == {"max_new_tokens": 9}
    assert (found.policy, found.clamp, found.goes_on, found.default_system) == ("refuse", True, False, True)


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"top_p": 0}, {"top_p": 1e-9}),
        ({"top_p": 0.5, "top_k": 40}, {"top_p": 0.5, "top_k": 40}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop_sequences": []}, {"stop": ()}),
        ({"seed": 3, "min_p": 0.1, "repetition_penalty": 1.1},
         {"seed": 3, "min_p": 0.1, "repetition_penalty": 1.1}),
        ({"max_tokens": 10**12}, {"max_new_tokens": 10_000_000}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"max_thinking_tokens": 1024}),
        ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
         {"constraint": Constraint("json_schema", SCHEMA)}),
        ({"output_format": {"type": "json_schema", "schema": SCHEMA}},
         {"constraint": Constraint("json_schema", SCHEMA)}),
    ],
)  # fmt: skip
def test_options_in_our_words(fields: dict[str, Any], meant: dict[str, Any]) -> None:
    assert work(**fields).changes == {"max_new_tokens": 9} | meant


def test_system_prompts_of_both_forms() -> None:
    user = Message("user", "Hello")
    assert work(system="Be brief.").messages == (Message("system", "Be brief."), user)
    blocks = [text("Be brief.", cache_control={"type": "ephemeral"}), text("Be kind.")]
    assert work(system=blocks).messages == (Message("system", "Be brief.\nBe kind."), user)
    assert work(system="").messages == work(system=[]).messages == (user,)


def test_blocks_are_lines_and_turns_of_one_role_are_one() -> None:
    found = turns(
        ("user", [text("a"), text("b")]),
        ("user", "c"),
        ("assistant", [text("d")]),
        ("system", "e"),
        ("user", "f"),
    )
    assert found == (
        Message("user", "a\nb\n\nc"),
        Message("assistant", "d"),
        Message("system", "e"),
        Message("user", "f"),
    )


def test_a_tool_round_trip() -> None:
    use = {"type": "tool_use", "id": "toolu_abcdefghi", "name": "weather", "input": {"city": "Paris"}}
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_abcdefghi", "content": [text("sun"), text("wind")]},
        {"type": "tool_result", "tool_use_id": "other", "content": "no such city", "is_error": True},
        {"type": "tool_result", "tool_use_id": "empty"},
        text("And now?"),
    ]
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    found = turns(("user", "Hello"), ("assistant", [thought, text("Let me see."), use]), ("user", results))
    assert found == (
        Message("user", "Hello"),
        Message(
            "assistant",
            "Let me see.",
            reasoning="Hm.",
            tool_calls=(ToolCall("abcdefghi", "weather", {"city": "Paris"}),),
        ),
        Message("tool", "sun\nwind", tool_call_id="abcdefghi"),
        Message("tool", "Error: no such city", tool_call_id="other"),
        Message("tool", "", tool_call_id="empty"),
        Message("user", "And now?"),
    )


def test_documents_that_are_text_are_read() -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "Once"}
    blocks = [
        {"type": "document", "source": plain, "title": "A tale"},
        {"type": "document", "source": {"type": "content", "content": [text("upon")]}},
        {"type": "search_result", "source": "a.txt", "title": "T", "content": [text("a time")]},
    ]
    assert turns(("user", blocks)) == (Message("user", "A tale\nOnce\nupon\nT\na.txt\na time"),)


def test_an_answer_that_is_begun_goes_on() -> None:
    begun = [*HELLO, {"role": "assistant", "content": "Hi, I"}]
    assert work(messages=begun).goes_on
    empty = [*HELLO, {"role": "assistant", "content": ""}]
    assert not work(messages=empty).goes_on and work(messages=empty).messages == (Message("user", "Hello"),)
    use = {"type": "tool_use", "id": "a", "name": "weather", "input": {}}
    assert refused(messages=[*HELLO, {"role": "assistant", "content": [use]}]).param == "messages"


def test_tools_and_their_choice() -> None:
    offered = [WEATHER, {"name": "now", "type": "custom", "input_schema": {}, "strict": True}]
    found = work(tools=offered).tools
    assert found == (
        ToolDefinition("weather", "It tells.", SCHEMA),
        ToolDefinition("now", "", {"type": "object", "properties": {}}, strict=True),
    )
    for choice, meant in (
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "now"}, "now"),
    ):
        assert work(tools=offered, tool_choice=choice).changes["tool_choice"] == meant
    assert "tool_choice" not in work(tool_choice={"type": "auto"}).changes


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({}, Thinking()),
        ({"thinking": {"type": "disabled"}}, Thinking(("off",))),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, Thinking(("on", None), ("thinking",))),
        ({"thinking": {"type": "adaptive"}}, Thinking()),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
         Thinking(("high", None), ("output_config.effort",))),
        ({"thinking": {"type": "enabled"}, "output_config": {"effort": "low"}},
         Thinking(("low", "on", None), ("output_config.effort", "thinking"))),
        ({"output_config": {"effort": "low"}}, Thinking()),
    ],
)  # fmt: skip
def test_reasoning_in_our_words(fields: dict[str, Any], meant: Thinking) -> None:
    assert thinking_of(read(**fields)) == meant


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "u"}}]}]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "A"}}]}]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "image"}]}]}]},
         "messages[0].content[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}]},
         "messages[0].content[0].name"),
        ({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]}, "messages"),
        ({"temperature": 99}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "no"}}, "tool_choice.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"thinking": {"type": "yes"}}, "thinking.type"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"mcp_servers": [{"url": "u"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_what_is_for_anthropics_bills_is_not_for_the_model() -> None:
    line = text("x-anthropic-billing-header: cc_version=2.1.37; cc_entrypoint=cli; cch=fa690;")
    asked = read(system=[line, text("Be brief.")])
    assert message_work(asked, Caller("local")).messages == (
        Message("system", "Be brief."),
        Message("user", "Hello"),
    )
    assert ignored_fields(asked) == ("system[0]",)
    said = "What is x-anthropic-billing-header: for?"
    assert work(system=[text(said)]).messages == (Message("system", said), Message("user", "Hello"))


def test_fields_without_effect_are_named() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    asked = read(
        metadata={"user_id": "u"},
        service_tier="auto",
        context_management={"edits": []},
        mcp_servers=[],
        output_config={"effort": "high"},
        system=[text("Be brief.", **cached)],
        tools=[{**WEATHER, **cached}],
        messages=[
            {"role": "user", "content": [text("Hello", **cached)]},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, text("Hi")]},
            {"role": "user", "content": "Well?"},
        ],
    )
    assert set(ignored_fields(asked)) == {
        "metadata", "service_tier", "context_management", "output_config.effort", "system[0].cache_control",
        "tools[0].cache_control", "messages[0].content[0].cache_control", "messages[1].content[0]",
        "messages[1].content[0].data",
    }  # fmt: skip
    assert not ignored_fields(read(system="x", tools=[WEATHER], thinking={"type": "adaptive"}))
