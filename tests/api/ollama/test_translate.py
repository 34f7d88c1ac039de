"""From Ollama's requests to work: messages, tools, formats, thinking, and what a request for a reply refuses."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llm_local.api.bodies import validate
from llm_local.api.ollama.names import bare_name, tagged_name
from llm_local.api.ollama.schemas import OllamaChat, OllamaGenerate
from llm_local.api.ollama.translate import (
    Asked,
    chat_work,
    generate_work,
    ignored_fields,
    only_loads,
    warnings_of,
)
from llm_local.errors import InvalidRequest
from llm_local.loaders.card import Capcapabilities, ModelCard
from llm_local.messages import Message
from llm_local.options import Constraint
from llm_local.service import Caller, Work

USER = Caller("local", is_admin=True)
HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}


def card(thinking: str = "", template: str = "{{ messages }}") -> ModelCard:
    return ModelCard(
        "safetensors", chat_template=template, capabilities=Capcapabilities(chat=True, thinking=thinking)
    )


def chat(known: ModelCard | None = None, **fields: Any) -> Work:
    body = validate(OllamaChat, {"model": "m", "messages": HI, **fields})
    return chat_work(Asked(body, USER, "ours", known, capped=True), body)


def generate(known: ModelCard | None = None, **fields: Any) -> Work:
    body = validate(OllamaGenerate, {"model": "m", "prompt": "Hi", **fields})
    return generate_work(Asked(body, USER, "ours", known, capped=True), body)


def test_a_chat() -> None:
    work = chat(keep_alive="5m", options={"temperature": 0}, logprobs=True, top_logprobs=2)
    assert (work.model, work.keep_alive_s, work.messages) == ("ours", 300.0, (Message("user", "Hi"),))
    assert work.changes == {"temperature": 0.0, "logprobs": True, "top_logprobs": 2}
    assert work.clamp and work.policy == "trim-oldest" and work.default_system
    assert chat(truncate=False).policy == "refuse"


def test_roles_in_any_letter_case_and_messages_without_content() -> None:
    work = chat(messages=[{"role": "System", "content": "Be brief."}, {"role": "USER"}, *HI])
    assert work.messages is not None
    assert [(one.role, one.content) for one in work.messages] == [
        ("system", "Be brief."), ("user", ""), ("user", "Hi"),
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="role") as caught:
        chat(messages=[{"role": "wizard", "content": "x"}])
    assert caught.value.param == "messages[0].role"


def test_calls_and_results_without_ids_find_each_other() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"function": {"name": name, "arguments": {"x": name}}}

    work = chat(
        messages=[
            *HI,
            {"role": "assistant", "thinking": "hm", "tool_calls": [call("f"), call("g"), call("f")]},
            {"role": "tool", "tool_name": "g", "content": "1"},
            {"role": "tool", "tool_name": "f", "content": "2"},
            {"role": "tool", "content": "3"},
            {"role": "assistant", "tool_calls": [{"id": "mine", **call("f")}]},
            {"role": "tool", "tool_call_id": "mine", "content": "4"},
        ]
    )
    assert work.messages is not None
    first, second, third = work.messages[1].tool_calls
    assert work.messages[1].reasoning == "hm" and first.arguments == {"x": "f"}
    assert len({first.id, second.id, third.id}) == 3 and all(
        len(one.id) == 9 for one in (first, second, third)
    )
    assert [one.tool_call_id for one in work.messages[2:5]] == [second.id, first.id, third.id]
    assert work.messages[5].tool_calls[0].id == work.messages[6].tool_call_id == "mine"
    assert work.messages[2].name == "g"


def test_a_result_nobody_waits_for_and_calls_of_one_id() -> None:
    call = {"id": "same", "function": {"name": "f"}}
    work = chat(
        messages=[
            {"role": "tool", "tool_name": "f", "content": "0"},
            {"role": "assistant", "tool_calls": [call, call]},
            {"role": "tool", "tool_name": "f", "content": "1"},
            {"role": "tool", "tool_name": "f", "content": "2"},
        ]
    )
    assert work.messages is not None
    assert [one.tool_call_id for one in work.messages] == [None, None, "same", None]


def test_very_many_messages_are_refused_and_many_read_in_no_time() -> None:
    calls = [
        {"role": "assistant", "tool_calls": [{"function": {"name": f"f{n % 7}"}}] * 2} for n in range(3000)
    ]
    results = [{"role": "tool", "tool_name": f"f{n % 7}", "content": "x"} for n in range(6000)]
    began = time.process_time()
    messages = chat(messages=[*calls, *results]).messages
    assert time.process_time() - began < 2
    assert messages is not None and len({one.tool_call_id for one in messages[3000:]}) > 5990
    with pytest.raises(InvalidRequest) as caught:
        chat(messages=[{"role": "user"}] * 10_001)
    assert caught.value.param == "messages"


def test_tools() -> None:
    (tool,) = chat(tools=[TOOL], known=card()).tools
    assert (tool.name, tool.description, tool.parameters) == ("f", "d", SCHEMA)
    assert chat(tools=[{"function": {"name": "f"}}]).tools[0].parameters["type"] == "object"
    for bad in (
        [{"type": "retrieval", "function": {"name": "f"}}],
        [{"type": "function"}],
        [{"function": {"name": ""}}],
    ):
        with pytest.raises(InvalidRequest):
            chat(tools=bad)
    with pytest.raises(InvalidRequest, match='^"m" does not support tools$'):
        chat(tools=[TOOL], known=card(template=""))


@pytest.mark.parametrize(
    ("form", "constraint"),
    [(None, None), ("", None), ("json", Constraint("json")), (SCHEMA, Constraint("json_schema", SCHEMA))],
)
def test_formats(form: Any, constraint: Constraint | None) -> None:
    assert chat(format=form).changes.get("constraint") == constraint
    assert generate(format=form, raw=True).changes.get("constraint") == constraint


@pytest.mark.parametrize("form", ["xml", 5, [], True])
def test_other_formats_are_refused_in_ollamas_words(form: Any) -> None:
    with pytest.raises(
        InvalidRequest, match='^invalid format: .*expected "json" or a valid JSON Schema object'
    ):
        chat(format=form)


@pytest.mark.parametrize(
    ("think", "thinking", "change"),
    [
        (None, "switchable", None),
        (True, "switchable", "on"), (False, "switchable", "off"),
        ("low", "switchable", "low"), ("max", "switchable", "high"),
        (True, "always or by itself", None), (False, "always or by itself", "off"),
        (False, "", None),
    ],
)  # fmt: skip
def test_thinking(think: Any, thinking: str, change: str | None) -> None:
    assert chat(card(thinking), think=think).changes.get("think") == change


def test_thinking_where_there_is_none() -> None:
    for think in (True, "high"):
        with pytest.raises(InvalidRequest, match='^"m" does not support thinking$') as caught:
            chat(card(), think=think)
        assert caught.value.param == "think"
    with pytest.raises(InvalidRequest, match='^invalid think value: "much"'):
        chat(card("switchable"), think="much")
    assert "think" not in generate(card("switchable"), raw=True, think=False).changes
    assert chat(think=False).changes["think"] == "off"  # what is not known yet the model itself decides


def test_a_prompt_is_a_conversation_of_one_message() -> None:
    work = generate(system="Be brief.")
    assert work.messages == (Message("system", "Be brief."), Message("user", "Hi"))
    later = generate(context=[1, 2, 3])
    assert later.before_ids == (1, 2, 3) and not later.default_system
    for plain in (generate(card(template="")), generate(card(template=""), context=[1])):
        assert (plain.prompt, plain.messages) == ("Hi", None)  # such a model continues texts
    assert plain.before_ids == (1,)
    assert generate(card(template=""), system="Be brief.").messages is not None
    raw = generate(raw=True)
    assert (raw.prompt, raw.messages, raw.before_ids) == ("Hi", None, ())


@pytest.mark.parametrize(
    ("fields", "words", "param"),
    [
        ({"raw": True, "system": "x"}, "raw mode does not support template, system, or context", "raw"),
        ({"raw": True, "template": "x"}, "raw mode does not support template, system, or context", "raw"),
        ({"raw": True, "context": [1]}, "raw mode does not support template, system, or context", "raw"),
        ({"suffix": "end"}, '"m" does not support insert', "suffix"),
        ({"template": "{{ .Prompt }}"}, "template is not supported.", "template"),
        ({"images": ["aGk="]}, '"m" does not support images', "images"),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs", "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "top_logprobs"),
        ({"keep_alive": "soon"}, "keep_alive is no duration", "keep_alive"),
        ({"context": ["a"]}, "context", "context[0]"),
    ],
)
def test_what_a_prompt_cannot_have(fields: dict[str, Any], words: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        generate(**fields)
    assert str(caught.value).startswith(words) and caught.value.param == param


def test_pictures_in_a_conversation_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="does not support images") as caught:
        chat(messages=[{"role": "user", "content": "x", "images": ["aGk="]}])
    assert caught.value.param == "messages[0].images"
    assert chat(messages=[{"role": "user", "content": "x", "images": []}]).messages


def test_what_only_loads() -> None:
    for body, loads in (
        ({"model": "m"}, True), ({"model": "m", "messages": []}, True), ({"model": "m", "messages": HI}, False),
        ({"model": "m", "messages": [{"role": "system", "content": "x"}]}, False),
    ):  # fmt: skip
        assert only_loads(validate(OllamaChat, body)) is loads
    assert only_loads(validate(OllamaGenerate, {"model": "m", "prompt": "", "stream": True}))


def test_ignored_fields_are_named_with_their_place() -> None:
    body = validate(
        OllamaChat,
        {
            "model": "m", "messages": [{"role": "user", "content": "x", "cache": 1}], "temperature": 1, "shift": True,
            "max_output_tokens": 5, "options": {"num_ctx": 8, "mirostat": 1, "x y": 1},
        },
    )  # fmt: skip
    asked = Asked(body, USER, "ours", None, capped=True)
    assert set(ignored_fields(body, asked.options)) == {
        "temperature", "max_output_tokens", "shift", "messages[0].cache", "options.num_ctx", "options.mirostat", "?",
    }  # fmt: skip


def test_warnings() -> None:
    body = validate(OllamaChat, {"model": "m", "messages": HI, "options": {"num_ctx": 4096}})
    options = Asked(body, USER, "ours", None, capped=True).options
    assert warnings_of(options, 4096, None, ()) == []
    notice, trimmed, window = warnings_of(options, 2048, (3, 700), ("A notice.",))
    assert notice == "A notice."
    assert "3" in trimmed and "700 tokens" in trimmed
    assert "4096" in window and "2048" in window


@pytest.mark.parametrize(
    ("asked", "bare"),
    [
        ("starter", "starter"), ("starter:latest", "starter"), ("starter:LATEST", "starter"),
        ("org/name:latest", "org/name"), ("org/name:Q4_K_M", "org/name:Q4_K_M"), ("hf.co/org/name", "org/name"),
        ("qwen3:0.6b", "qwen3-0.6b"), ("llama3.2:1b", "llama3.2:1b"),
    ],
)  # fmt: skip
def test_names_lose_what_only_ollamas_have(asked: str, bare: str) -> None:
    assert bare_name(asked) == bare


def test_names_are_listed_with_a_tag() -> None:
    assert tagged_name("starter") == "starter:latest"
    assert tagged_name("org/name:model.gguf") == "org/name:model.gguf"
