"""OpenAI's requests become our words, and what cannot be done is refused by its own name."""

from __future__ import annotations

from typing import Any

import pytest

from llm_local.api.bodies import ignored_names, validate
from llm_local.api.openai.schemas import ChatRequest, CompletionRequest
from llm_local.api.openai.translate import chat_work, completion_works
from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolDefinition
from llm_local.options import Constraint
from llm_local.service import Caller, Work

CALLER = Caller("local")
HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA}}
NOW = {"type": "function", "function": {"name": "now"}}


def chat(capped: bool = False, **fields: Any) -> Work:
    body = {"model": "m", "messages": HELLO, **fields}
    return chat_work(validate(ChatRequest, body), CALLER, capped=capped)


def changes(**fields: Any) -> dict[str, Any]:
    return dict(chat(capped=True, **fields).changes)


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    return caught.value


def test_what_is_left_open_stays_open() -> None:
    work = chat(capped=True)
    assert (work.model, work.messages, work.tools, dict(work.changes)) == (
        "m",
        (Message("user", "Hello"),),
        (),
        {},
    )
    assert work.policy == "refuse"


def test_without_any_cap_the_reply_may_fill_the_window() -> None:
    assert chat().changes == {"max_new_tokens": None}
    assert chat(max_tokens=7).changes == {"max_new_tokens": 7}
    assert changes(max_completion_tokens=8) == {"max_new_tokens": 8}
    assert changes(max_tokens=8, max_completion_tokens=8) == {"max_new_tokens": 8}
    assert refused(max_tokens=7, max_completion_tokens=8).param == "max_completion_tokens"


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"temperature": 0, "seed": 7}, {"temperature": 0, "seed": 7}),
        ({"top_p": 0.5, "min_p": 0.1, "typical_p": 0.9}, {"top_p": 0.5, "min_p": 0.1, "typical_p": 0.9}),
        ({"top_p": 0}, {"top_p": 1e-9}),
        ({"top_k": 40}, {"top_k": 40}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"presence_penalty": -2, "frequency_penalty": 2}, {"presence_penalty": -2, "frequency_penalty": 2}),
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"repetition_penalty": 1.1, "repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"stop": "END"}, {"stop": ("END",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": []}, {"stop": ()}),
        ({"logit_bias": {"5": -100, "6": 1.5}}, {"logit_bias": {5: -100, 6: 1.5}}),
        ({"logprobs": True}, {"logprobs": True, "top_logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 20}, {"logprobs": True, "top_logprobs": 20}),
        ({"logprobs": False, "top_logprobs": 0}, {}),
        ({"reasoning_effort": "none"}, {"think": "off"}),
        ({"reasoning_effort": "minimal"}, {"think": "low"}),
        ({"reasoning_effort": "xhigh"}, {"think": "high"}),
        ({"reasoning": {"effort": "medium"}}, {"think": "medium"}),
        ({"reasoning": {}}, {}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"think": "off"}),
        ({"chat_template_kwargs": {"thinking": True}}, {"think": "on"}),
        ({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "low"}}, {"think": "low"}),
        ({"max_thinking_tokens": 9}, {"max_thinking_tokens": 9}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"constraint": Constraint("json")}),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            {"constraint": Constraint("json_schema", SCHEMA)},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            {"constraint": Constraint("json_schema", SCHEMA)},
        ),
        ({"guided_json": SCHEMA}, {"constraint": Constraint("json_schema", SCHEMA)}),
        ({"json_schema": SCHEMA}, {"constraint": Constraint("json_schema", SCHEMA)}),
        ({"guided_regex": "a+"}, {"constraint": Constraint("regex", "a+")}),
        ({"guided_choice": ["a", "b"]}, {"constraint": Constraint("choice", ["a", "b"])}),
        ({"guided_grammar": 'root ::= "a"'}, {"constraint": Constraint("grammar", 'root ::= "a"')}),
        ({"grammar": 'root ::= "a"'}, {"constraint": Constraint("gbnf", 'root ::= "a"')}),
        ({"grammar": ""}, {}),
        ({"structured_outputs": {"regex": "a+"}}, {"constraint": Constraint("regex", "a+")}),
        ({"structured_outputs": {"json": SCHEMA}}, {"constraint": Constraint("json_schema", SCHEMA)}),
        ({"structured_outputs": {"json_object": True}}, {"constraint": Constraint("json")}),
        ({"structured_outputs": {"json_object": False}}, {}),
    ],
)
def test_options_in_our_words(fields: dict[str, Any], meant: dict[str, Any]) -> None:
    assert changes(**fields) == meant


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"messages": [{"role": "user", "content": "x"}] * 4097}, "messages"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "tools"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"chat_parser": {}}, "chat_parser"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"\N{SUPERSCRIPT TWO}": 1}}, "logit_bias"),
        ({"repetition_penalty": 1.1, "repeat_penalty": 1.2}, "repeat_penalty"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
        ({"chat_template_kwargs": {"thinking": "yes"}}, "chat_template_kwargs.thinking"),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
            "chat_template_kwargs.enable_thinking",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
            "structured_outputs.regex",
        ),
        ({"guided_choice": []}, "guided_choice"),
        ({"functions": []}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [ADD], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "sub"}}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "custom"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_an_answer_may_go_on() -> None:
    assert not chat().goes_on
    assert chat(continue_final_message=True, add_generation_prompt=False).goes_on
    assert refused(add_generation_prompt=False).param == "add_generation_prompt"


def test_the_tag_of_ollamas_clients_is_no_part_of_a_name() -> None:
    assert chat(model="a/b:latest").model == "a/b"
    assert completion(prompt="x", model="a:latest")[0].model == "a"


def test_fields_without_effect_are_taken_and_named() -> None:
    fields = {
        "user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "prediction": {"x": 1},
        "modalities": ["text"], "stream_options": {"include_usage": True, "include_obfuscation": False},
        "num_ctx": 4096,
    }  # fmt: skip
    body = validate(ChatRequest, {"model": "m", "messages": HELLO, **fields})
    assert not set(chat_work(body, CALLER, capped=True).changes)
    assert sorted(ignored_names(body)) == [
        "metadata", "num_ctx", "prediction", "service_tier", "store", "stream_options.include_obfuscation", "user",
    ]  # fmt: skip


def test_tools_and_their_choice() -> None:
    add, now = (
        ToolDefinition("add", "Adds.", SCHEMA),
        ToolDefinition("now", "", {"type": "object", "properties": {}}),
    )
    assert chat(tools=[ADD, NOW]).tools == (add, now)
    assert chat(tools=[]).tools == ()
    assert "tool_choice" not in changes(tools=[ADD])
    assert changes(tools=[ADD], tool_choice="none") == {"tool_choice": "none"}
    assert changes(tools=[ADD], tool_choice="required") == {"tool_choice": "required"}
    assert changes(tool_choice="auto") == {}
    named = {"type": "function", "function": {"name": "now"}}
    assert changes(tools=[ADD, NOW], tool_choice=named) == {"tool_choice": "now"}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    work = chat(tools=[ADD, NOW], tool_choice=allowed)
    assert (work.tools, work.changes["tool_choice"]) == ((now,), "required")


def completion(**fields: Any) -> list[Work]:
    return completion_works(validate(CompletionRequest, {"model": "m", **fields}), CALLER)


def test_prompts_of_every_form() -> None:
    assert [work.prompt for work in completion(prompt="a")] == ["a"]
    assert [work.prompt for work in completion(prompt=["a", "b"])] == ["a", "b"]
    assert [work.prompt_ids for work in completion(prompt=[1, 2])] == [(1, 2)]
    assert [work.prompt_ids for work in completion(prompt=[[1], [2, 3]])] == [(1,), (2, 3)]
    assert [work.prompt for work in completion()] == ["<|endoftext|>"]
    assert completion(prompt="a")[0].changes == {"max_new_tokens": 16}
    assert completion(prompt="a", max_tokens=0, echo=True)[0].changes == {"max_new_tokens": 1}
    assert completion(prompt="a", logprobs=0)[0].changes["logprobs"] is True
    assert completion(prompt="a", best_of=2)[0].changes["logprobs"] is True
    assert "logprobs" not in completion(prompt="a", best_of=2, n=2)[0].changes


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": ["a"] * 257}, "prompt"),
        ({"prompt": ["a"] * 17, "stream": True}, "prompt"),
        ({"prompt": "a", "n": 9}, "n"),
        ({"prompt": "a", "best_of": 9}, "best_of"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 1, "n": 2}, "best_of"),
        ({"prompt": "a", "best_of": 3, "stream": True}, "best_of"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
    ],
)
def test_completions_that_cannot_be_done(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        completion(**fields)
    assert caught.value.param == param
