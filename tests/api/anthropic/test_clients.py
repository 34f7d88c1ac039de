"""Anthropic's own client against a real server with the starter model, and what Claude Code sends."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import Anthropic

from api.live_server import LiveServer

MODEL = "starter"
HELLO: Any = [{"role": "user", "content": "Hello!"}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASK_FOR_CITY: Any = [{"role": "user", "content": "Give me a JSON object with name Paris and country France."}]
GREEDY: Any = {"extra_body": {"temperature": 0}}


class City(pydantic.BaseModel):
    name: str
    country: str


@pytest.fixture
def client(live_server: LiveServer) -> Iterator[Anthropic]:
    with Anthropic(base_url=live_server.base_url, api_key="none", max_retries=0) as made:
        yield made


def ask(client: Anthropic, messages: Any = HELLO, **fields: Any) -> Any:
    return client.messages.create(
        **{"model": MODEL, "max_tokens": 200, "messages": messages, **GREEDY, **fields}
    )


def test_an_answer_and_its_count(client: Anthropic) -> None:
    found = ask(client, system="You are helpful.")
    assert (found.type, found.role, found.model, found.stop_reason) == (
        "message",
        "assistant",
        MODEL,
        "end_turn",
    )
    assert found.content[0].type == "text" and found.content[0].text
    assert found.id.startswith("msg_") and found._request_id
    assert (found.usage.cache_read_input_tokens, found.usage.cache_creation_input_tokens) == (0, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"system": "You are helpful."},
        {"system": [{"type": "text", "text": "You are helpful."}], "tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}},
        {"messages": [*HELLO, {"role": "assistant", "content": "Hello! I am"}]},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "disabled"}},
    ],
)
def test_counted_tokens_are_the_input_tokens(client: Anthropic, fields: Any) -> None:
    counted = client.messages.count_tokens(**{"model": MODEL, "messages": HELLO, **fields}).input_tokens
    for _ in range(2):  # read anew, and from what is kept of the first
        usage = ask(client, max_tokens=4, **fields).usage
        assert usage.input_tokens == counted and usage.output_tokens <= 4
        given: Any = {"model": MODEL, "max_tokens": 4, "messages": HELLO, **fields}
        with client.messages.stream(**given) as stream:
            first = next(iter(stream))
            assert first.type == "message_start" and first.message.usage.input_tokens == counted
            assert stream.get_final_message().usage.input_tokens == counted


def test_a_stream_is_the_whole_answer(client: Anthropic) -> None:
    drawn: Any = {"extra_body": {"temperature": 1.2, "seed": 5}}
    whole = ask(client, max_tokens=24, **drawn)
    with client.messages.stream(model=MODEL, max_tokens=24, messages=HELLO, **drawn) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert text == whole.content[0].text == streamed.content[0].text  # type: ignore[union-attr]
    assert (streamed.stop_reason, streamed.usage.output_tokens) == (
        whole.stop_reason,
        whole.usage.output_tokens,
    )


def test_a_cap_is_exact_and_one_beyond_the_window_is_the_room_there_is(client: Anthropic) -> None:
    cut = ask(client, max_tokens=3)
    assert (cut.usage.output_tokens, cut.stop_reason) == (3, "max_tokens")
    assert ask(client, max_tokens=10**6, timeout=60).stop_reason == "end_turn"


def test_a_stop_sequence_is_told_and_not_shown(client: Anthropic) -> None:
    whole = ask(client).content[0].text
    stop = whole[8:14]
    found = ask(client, stop_sequences=["never there", stop])
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", stop)
    assert found.content[0].text == whole[: whole.index(stop)]
    with client.messages.stream(
        model=MODEL, max_tokens=200, messages=HELLO, stop_sequences=[stop], **GREEDY
    ) as stream:
        streamed = stream.get_final_message()
    assert (streamed.stop_reason, streamed.stop_sequence) == ("stop_sequence", stop)


def test_an_answer_that_is_begun_goes_on(client: Anthropic) -> None:
    whole = ask(client).content[0].text
    rest = ask(client, [*HELLO, {"role": "assistant", "content": whole[:8]}]).content[0].text
    assert whole[:8] + rest == whole


def test_a_tool_round_trip(client: Anthropic) -> None:
    asked = ask(client, WEATHER, tools=[TOOL])
    [call] = asked.content
    assert (asked.stop_reason, call.type, call.name, call.input) == (
        "tool_use",
        "tool_use",
        "get_weather",
        {"city": "Paris"},
    )
    with client.messages.stream(
        model=MODEL, max_tokens=200, messages=WEATHER, tools=[TOOL], **GREEDY
    ) as stream:
        [streamed] = stream.get_final_message().content
    assert streamed.type == "tool_use" and streamed.input == call.input
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 21 degrees"}
    turns = [
        *WEATHER,
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [result]},
    ]
    answered = ask(client, turns, tools=[TOOL])
    assert answered.stop_reason == "end_turn" and "sunny" in answered.content[0].text


def test_a_call_can_be_forced_and_kept_to_one(client: Anthropic) -> None:
    for choice in (
        {"type": "tool", "name": "get_weather"},
        {"type": "any", "disable_parallel_tool_use": True},
    ):
        found = ask(client, tools=[TOOL], tool_choice=choice, max_tokens=100)
        assert [block.type for block in found.content] == ["tool_use"] and found.stop_reason == "tool_use"
    never = ask(client, WEATHER, tools=[TOOL], tool_choice={"type": "none"})
    assert "tool_use" not in [block.type for block in never.content]


def test_an_answer_by_a_schema(client: Anthropic) -> None:
    found = client.messages.parse(
        model=MODEL, max_tokens=100, messages=ASK_FOR_CITY, output_format=City, **GREEDY
    )
    assert found.parsed_output == City(name="Paris", country="France")


def test_errors_are_anthropics(client: Anthropic) -> None:
    long: Any = [{"role": "user", "content": "Hello! " * 3000}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(client, long, stream=True)
    counted = client.messages.count_tokens(model=MODEL, messages=long).input_tokens
    assert caught.value.body == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": f"prompt is too long: {counted} tokens > 2048 maximum",
        },
        "request_id": caught.value.request_id,
    }
    with pytest.raises(anthropic.NotFoundError, match=r"model: nope\."):
        ask(client, model="nope")
    with pytest.raises(anthropic.BadRequestError, match="mcp_servers"):
        ask(client, extra_body={"mcp_servers": [{"type": "url", "url": "u", "name": "n"}]})
    picture: Any = [{"type": "image", "source": {"type": "url", "url": "u"}}]
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[0\]"):
        ask(client, [{"role": "user", "content": picture}])


# A request as Claude Code builds them, with shorter texts.
CACHED = {"cache_control": {"type": "ephemeral"}}
CLAUDE_CODE = {
    "model": MODEL, "max_tokens": 32000, "stream": True, "temperature": 1,
    "metadata": {"user_id": "user_0_account__session_1"},
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.37; cc_entrypoint=cli; cch=fa690;"},
        {"type": "text", "text": "You are a coding assistant.", **CACHED},
        {"type": "text", "text": "Be brief.", **CACHED},
    ],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>\nToday is Monday.\n</system-reminder>\n"},
            {"type": "text", "text": "What is the weather in Paris?", **CACHED},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "I should look.", "signature": "c2lnbmVk"},
            {"type": "text", "text": "I will look."},
            {"type": "tool_use", "id": "toolu_01A09q90qw90lq917835lq9", "name": "get_weather",
             "input": {"city": "Paris"}, **CACHED},
        ]},
        {"role": "user", "content": [
            {"tool_use_id": "toolu_01A09q90qw90lq917835lq9", "type": "tool_result", "content": "sunny",
             "is_error": False, **CACHED},
        ]},
        {"role": "system", "content": "The user has the file a.py open."},
    ],
    "tools": [{**TOOL, **CACHED, "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema", **TOOL["input_schema"],
        "additionalProperties": False}}],
    "thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
}  # fmt: skip
HEADERS = {
    "authorization": "Bearer some-token", "anthropic-version": "2023-06-01", "content-type": "application/json",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14", "x-app": "cli",
    "anthropic-dangerous-direct-browser-access": "true",
}  # fmt: skip


def test_what_claude_code_sends(live_server: LiveServer) -> None:
    assert live_server.ask("HEAD", "/")[0] == 200
    counting = {
        name: value
        for name, value in CLAUDE_CODE.items()
        if name not in ("max_tokens", "stream", "temperature")
    }
    status, counted = live_server.ask("POST", "/v1/messages/count_tokens?beta=true", counting, HEADERS)
    assert status == 200
    connection = http.client.HTTPConnection("127.0.0.1", live_server.port, timeout=60)
    connection.request("POST", "/v1/messages?beta=true", json.dumps(CLAUDE_CODE), HEADERS)
    response = connection.getresponse()
    raw = response.read().decode()
    connection.close()
    assert response.status == 200
    ignored = (response.getheader("x-llm-local-ignored") or "").split(", ")
    assert {
        "metadata",
        "context_management",
        "system[0]",
        "system[1].cache_control",
        "output_config.effort",
    } <= set(ignored)
    events = [json.loads(block.split("\n")[1].removeprefix("data: ")) for block in raw.strip().split("\n\n")]
    assert events[0]["message"]["usage"]["input_tokens"] == counted["input_tokens"]
    assert events[-2]["delta"]["stop_reason"] in ("end_turn", "tool_use")
    assert events[-1] == {"type": "message_stop"}


def test_who_leaves_frees_the_place(live_server: LiveServer, client: Anthropic) -> None:
    endless: Any = {
        "model": MODEL, "messages": HELLO, "max_tokens": 1900,
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "string", "minLength": 1700}}},
    }  # fmt: skip
    for _ in range(3):
        stream = client.messages.create(**endless, stream=True)
        next(iter(stream))
        stream.close()
    with pytest.raises(anthropic.APITimeoutError):
        client.messages.create(**endless, timeout=0.3)
    end = time.monotonic() + 20
    while busy(live_server):
        assert time.monotonic() < end, "places are still held"
        time.sleep(0.05)


def busy(server: LiveServer) -> int:
    status, stats = server.ask("GET", "/queue/stats")
    assert status == 200
    lines = stats["lines"].values() if "lines" in stats else [stats]
    return sum(line["running"] + line["waiting"] for line in lines)
