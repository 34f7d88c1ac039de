"""OpenAI's own clients against a real server with the starter model, and what LibreChat sends, byte for byte."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI

from api.live_server import LiveServer

MODEL = "starter"
HELLO: Any = [{"role": "user", "content": "Hello!"}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
FUNCTION: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOLS: Any = [{"type": "function", "function": FUNCTION}]
FLAT_TOOLS: Any = [{"type": "function", **FUNCTION}]
ASK_FOR_CITY = "Give me a JSON object with name Paris and country France."
PACKAGES = os.environ.get("NODE_MODULES_FOLDER", "")


class City(pydantic.BaseModel):
    name: str
    country: str


class Bounded(pydantic.BaseModel):
    word: str = pydantic.Field(max_length=12)
    numbers: list[int] = pydantic.Field(max_length=3)


@pytest.fixture
def client(live_server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live_server.base_url}/v1", api_key="none", max_retries=0) as made:
        yield made


def post(server: LiveServer, path: str, body: dict[str, Any]) -> Any:
    return server.ask("POST", f"/v1/{path}", {"model": MODEL, **body})


def chunks_of(raw: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end as OpenAI's do."""
    *blocks, done, rest = raw.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(block.startswith("data: {") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_models(client: OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    found = client.models.retrieve(MODEL)
    assert (found.id, found.object) == (MODEL, "model")
    assert found.model_extra is not None and found.model_extra["context_length"] > 0
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("not/here")
    assert caught.value.code == "model_not_found"


def test_a_stream_is_the_whole_answer(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": HELLO, "seed": 5, "temperature": 1.2, "max_tokens": 24}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    *said, end, counts = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == whole.choices[0].message.content
    assert (end.choices[0].finish_reason, counts.choices) == (whole.choices[0].finish_reason, [])
    assert whole.usage is not None and counts.usage is not None
    assert counts.usage.completion_tokens == whole.usage.completion_tokens <= 24
    assert [chunk.choices[0].delta.role for chunk in chunks[:-1]].count("assistant") == 1
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    with client.chat.completions.stream(model=MODEL, messages=HELLO, temperature=0) as helper:
        said_once = helper.get_final_completion().choices[0].message.content
    assert (
        client.chat.completions.create(model=MODEL, messages=HELLO, temperature=0).choices[0].message.content
        == said_once
    )


def test_a_cap_is_exact_and_one_beyond_the_window_is_the_room_there_is(client: OpenAI) -> None:
    ask = client.chat.completions.create
    cut = ask(model=MODEL, messages=HELLO, max_completion_tokens=3, temperature=0)
    assert cut.usage is not None
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (3, "length")
    assert (
        ask(model=MODEL, messages=HELLO, max_tokens=10**9, temperature=0).choices[0].finish_reason == "stop"
    )


def test_choices_are_counted_once_and_summed_and_repeatable(live_server: LiveServer, client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": HELLO, "temperature": 2.0, "top_p": 1, "max_tokens": 6}
    raw = client.chat.completions.with_raw_response.create(**asked, n=3, extra_body={"top_k": 0})
    many = raw.parse()
    assert [choice.index for choice in many.choices] == [0, 1, 2]
    single = client.chat.completions.create(**asked, n=1)
    assert many.usage is not None and single.usage is not None
    assert many.usage.prompt_tokens == single.usage.prompt_tokens
    assert many.usage.completion_tokens > single.usage.completion_tokens
    seeds = [int(seed) for seed in raw.headers["x-llm-local-seed"].split(",")]
    for seed, choice in zip(seeds, many.choices, strict=True):
        again = client.chat.completions.create(**asked, seed=seed, extra_body={"top_k": 0})
        assert again.choices[0].message.content == choice.message.content
    _, streamed = post(
        live_server, "chat/completions", {**asked, "n": 3, "top_k": 0, "seed": seeds[0], "stream": True}
    )
    for index, choice in enumerate(many.choices):
        mine = [chunk["choices"][0] for chunk in chunks_of(streamed) if chunk["choices"][0]["index"] == index]
        assert "".join(one["delta"].get("content", "") for one in mine) == choice.message.content
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [choice.finish_reason]


def test_there_is_one_logprob_for_each_token(live_server: LiveServer, client: OpenAI) -> None:
    asked: Any = {"messages": HELLO, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(model=MODEL, **asked)
    assert whole.usage is not None and whole.choices[0].logprobs is not None
    entries = whole.choices[0].logprobs.content or []
    assert len(entries) == whole.usage.completion_tokens
    text = b"".join(bytes(entry.bytes or []) for entry in entries[:-1]).decode()  # the last is the end token
    assert text == whole.choices[0].message.content
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in entries)
    _, streamed = post(live_server, "chat/completions", {**asked, "stream": True})
    found = [chunk["choices"][0]["logprobs"] for chunk in chunks_of(streamed)]
    joined = [entry for one in found if one for entry in one["content"]]
    assert [entry["token"] for entry in joined] == [entry.token for entry in entries]


def test_a_tool_round_trip(client: OpenAI) -> None:
    asked = client.chat.completions.create(model=MODEL, messages=WEATHER, tools=TOOLS, temperature=0)
    assert asked.choices[0].finish_reason == "tool_calls"
    message = asked.choices[0].message
    assert message.content is None and message.tool_calls is not None
    call: Any = message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}
    again = client.chat.completions.create(
        model=MODEL, messages=[*WEATHER, message, result], tools=TOOLS, temperature=0
    )
    assert "sunny" in (again.choices[0].message.content or "")


def test_a_streamed_call_adds_up(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=WEATHER, tools=TOOLS, temperature=0) as stream:
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls is not None
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Paris"}


def test_a_call_can_be_forced_and_kept_to_one(client: OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    for choice, parallel in ((named, True), ("required", False)):
        found = client.chat.completions.create(
            model=MODEL, messages=HELLO, tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel,
            temperature=0, max_tokens=100,
        )  # fmt: skip
        assert len(found.choices[0].message.tool_calls or []) == 1
        assert found.choices[0].finish_reason == "tool_calls"
    never = client.chat.completions.create(
        model=MODEL, messages=WEATHER, tools=TOOLS, tool_choice="none", temperature=0
    )
    assert never.choices[0].message.tool_calls is None


def test_answers_by_a_schema(client: OpenAI) -> None:
    asked: Any = [{"role": "user", "content": ASK_FOR_CITY}]
    parsed = client.chat.completions.parse(model=MODEL, messages=asked, response_format=City, temperature=0)
    assert parsed.choices[0].message.parsed == City(name="Paris", country="France")
    # whatever it is asked, and however it draws: what has bounds ends by itself
    for seed in range(3):
        strange = client.chat.completions.parse(
            model=MODEL, messages=HELLO, response_format=Bounded, temperature=1.5, seed=seed
        )
        assert isinstance(strange.choices[0].message.parsed, Bounded)
    free = client.chat.completions.create(
        model=MODEL, messages=asked, response_format={"type": "json_object"}, temperature=0
    )
    assert isinstance(json.loads(free.choices[0].message.content or ""), dict)


def test_completions_are_continued_and_scored(client: OpenAI) -> None:
    found = client.completions.create(model=MODEL, prompt=["Hello", "The sky is"], max_tokens=4, n=2, seed=3)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.usage is not None and found.usage.completion_tokens == 16
    text = "The sky is blue."
    scored = client.completions.create(model=MODEL, prompt=text, max_tokens=0, echo=True, logprobs=1)
    logprobs = scored.choices[0].logprobs
    assert scored.choices[0].text == text and logprobs is not None
    assert "".join(logprobs.tokens or []) == text
    assert [text[at] for at in logprobs.text_offset or []] == [token[0] for token in logprobs.tokens or []]
    longer = client.completions.create(
        model=MODEL, prompt=text, max_tokens=2, echo=True, logprobs=0, temperature=0
    )
    assert longer.choices[0].logprobs is not None and longer.choices[0].logprobs.token_logprobs is not None
    assert longer.choices[0].logprobs.token_logprobs[1:-2] == pytest.approx(
        (logprobs.token_logprobs or [])[1:], abs=1e-3
    )
    parts = client.completions.create(model=MODEL, prompt="Hello", max_tokens=4, temperature=0, stream=True)
    whole = client.completions.create(model=MODEL, prompt="Hello", max_tokens=4, temperature=0)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text


def test_the_best_of_several_is_the_likeliest(client: OpenAI) -> None:
    asked: Any = {
        "model": MODEL,
        "prompt": "The sky",
        "max_tokens": 6,
        "temperature": 1.5,
        "seed": 11,
        "logprobs": 0,
    }
    every = client.completions.create(**asked, n=4)
    best = client.completions.create(**asked, best_of=4)
    [found] = best.choices
    means = {}
    for choice in every.choices:
        assert choice.logprobs is not None and choice.logprobs.token_logprobs is not None
        means[choice.text] = sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
    assert found.text == max(means, key=lambda text: means[text])
    assert best.usage is not None and every.usage is not None
    assert best.usage.completion_tokens == every.usage.completion_tokens


def test_embeddings(client: OpenAI) -> None:
    alone = client.embeddings.create(model=MODEL, input="The sky is blue.")
    both = client.embeddings.create(
        model=MODEL, input=["A longer text than the other one is.", "The sky is blue."]
    )
    assert [one.index for one in both.data] == [0, 1]
    assert both.data[1].embedding == pytest.approx(alone.data[0].embedding, abs=1e-5)
    assert sum(number * number for number in alone.data[0].embedding) == pytest.approx(1, abs=1e-5)
    plain = client.embeddings.create(
        model=MODEL, input="The sky is blue.", encoding_format="float", dimensions=8
    )
    assert len(plain.data[0].embedding) == 8
    assert len(client.embeddings.create(model=MODEL, input=[[1, 2, 3], [4]]).data) == 2
    with pytest.raises(openai.BadRequestError, match="9906"):
        client.embeddings.create(model=MODEL, input=[[9906, 1917]])


def test_responses(client: OpenAI) -> None:
    whole = client.responses.create(model=MODEL, input="Hello!", temperature=0)
    assert (whole.status, whole.store) == ("completed", False)
    assert whole.usage is not None and whole.usage.output_tokens_details.reasoning_tokens == 0
    with client.responses.stream(model=MODEL, input="Hello!", temperature=0) as stream:
        numbers = [event.sequence_number for event in stream]
        assert numbers == list(range(len(numbers)))
        assert stream.get_final_response().output_text == whole.output_text
    cut = client.responses.create(model=MODEL, input="Hello!", max_output_tokens=2)
    assert cut.status == "incomplete" and cut.incomplete_details is not None
    parsed = client.responses.parse(model=MODEL, input=ASK_FOR_CITY, text_format=City, temperature=0)
    assert parsed.output_parsed == City(name="Paris", country="France")
    asked = client.responses.create(model=MODEL, input=WEATHER, tools=FLAT_TOOLS, temperature=0)
    [call] = [item for item in asked.output if item.type == "function_call"]
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    turns: Any = [*WEATHER, *asked.output, output]
    assert (
        "sunny"
        in client.responses.create(model=MODEL, input=turns, tools=FLAT_TOOLS, temperature=0).output_text
    )
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
    assert caught.value.code == "previous_response_not_found"


def test_decisions(live_server: LiveServer) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    status, found = post(live_server, "decisions", {"messages": question, "choices": ["Rome", "Paris"]})
    assert status == 200 and {one["text"]: one["index"] for one in found["choices"]} == {
        "Rome": 0,
        "Paris": 1,
    }
    assert sum(one["probability"] for one in found["choices"]) == pytest.approx(1)
    asked = {
        "wet": {"type": "noul", "instructions": "Is it wet?"},
        "how": {"type": "score", "criteria": ["a", "b"]},
    }
    status, found = post(live_server, "systemone", {"state": "It rains.", "questions": asked})
    assert status == 200 and 0 <= found["answers"]["wet"]["noul"] <= 1
    assert set(found["answers"]["how"]) == {"type", "score", "legend", "confidence", "probabilities"}


def test_errors_are_openais(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello! " * 3000}], stream=True
        )
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert "maximum context length is 2048 tokens. However, your messages resulted in" in caught.value.message
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nope", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.chat.completions.create(model=MODEL, messages=HELLO, reasoning_effort="low")
    assert unsupported.value.param == "reasoning_effort"
    with pytest.raises(openai.BadRequestError) as picture:
        part: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": [part]}])
    assert picture.value.param == "messages[0].content[0]"


def test_a_model_that_never_reasons_may_be_told_not_to(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=2,
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    )
    assert raw.headers["x-llm-local-ignored"] == "chat_template_kwargs"


def test_many_streams_at_once_do_not_mix(live_server: LiveServer) -> None:
    async def answer(client: AsyncOpenAI, seed: int) -> str:
        asked: Any = {"model": MODEL, "messages": HELLO, "seed": seed, "temperature": 2.0, "max_tokens": 12}
        return "".join(
            [
                chunk.choices[0].delta.content or ""
                async for chunk in await client.chat.completions.create(**asked, stream=True)
            ]
        )

    async def run() -> None:
        async with AsyncOpenAI(base_url=f"{live_server.base_url}/v1", api_key="none") as client:
            alone = [await answer(client, seed) for seed in range(8)]
            assert await asyncio.gather(*(answer(client, seed) for seed in range(8))) == alone

    asyncio.run(run())


def test_who_leaves_a_stream_frees_its_place(live_server: LiveServer, client: OpenAI) -> None:
    endless: Any = {"model": MODEL, "messages": HELLO, "temperature": 2.0, "max_tokens": 1900}
    for number in range(5):
        stream = client.chat.completions.create(
            **endless, stream=True, seed=number, extra_body={"top_k": 0, "guided_regex": "[a-z ]{1800}"}
        )
        next(iter(stream))
        stream.close()
    end = time.monotonic() + 20
    while any(line["running"] + line["waiting"] for line in lines_of(live_server)):
        assert time.monotonic() < end, "places are still held"
        time.sleep(0.05)


def lines_of(server: LiveServer) -> list[dict[str, Any]]:
    status, stats = server.ask("GET", "/queue/stats")
    assert status == 200
    return list(stats["lines"].values()) if "lines" in stats else [stats]


# What LibreChat's server sent, word for word.
CHAT_OF_LIBRECHAT = {
    "model": MODEL, "temperature": 0, "user": "65f1c0ffee65f1c0ffee65f1", "stream": True,
    "stream_options": {"include_usage": True}, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0,
    "messages": [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": [{"type": "text", "text": "Hello!"}]},
    ],
}  # fmt: skip
TITLE_OF_LIBRECHAT = {
    "model": MODEL, "user": "65f1c0ffee65f1c0ffee65f1", "stream": False,
    "messages": [{"role": "user", "content": "Provide a concise, 5-word-or-less title for the conversation: Hello!"}],
}  # fmt: skip


def test_what_librechat_sends(live_server: LiveServer) -> None:
    status, raw = live_server.ask("POST", "/v1/chat/completions", CHAT_OF_LIBRECHAT)
    chunks = chunks_of(raw)
    assert status == 200 and chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    usage = chunks[-1]["usage"]
    assert (
        chunks[-1]["choices"] == []
        and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    )
    assert {"cached_tokens"} == set(usage["prompt_tokens_details"])
    status, title = live_server.ask("POST", "/v1/chat/completions", TITLE_OF_LIBRECHAT)
    assert status == 200 and title["choices"][0]["message"]["content"]
    structured = {
        "type": "json_schema",
        "json_schema": {
            "name": "extract",
            "schema": {
                "type": "object",
                "properties": {"language": {"type": "string"}, "title": {"type": "string"}},
                "required": ["language", "title"],
            },
        },
    }
    body = TITLE_OF_LIBRECHAT | {"response_format": structured, "max_tokens": 200}
    status, title = live_server.ask("POST", "/v1/chat/completions", body)
    # a model this small may not find the end of a text without bounds, but it begins as it must
    assert status == 200 and title["choices"][0]["message"]["content"].startswith('{"language": "')
    status, listed = live_server.ask("GET", "/v1/models", headers={"Authorization": "Bearer local"})
    assert status == 200 and listed["data"][0]["pricing"] == {"prompt": "0", "completion": "0"}
    assert isinstance(listed["data"][0]["context_length"], int)
    tools = [{"type": "function", "function": {**FUNCTION, "name": "get_weather_mcp_server"}}]
    called = {
        "id": "call_x",
        "type": "function",
        "function": {"name": "get_weather_mcp_server", "arguments": "{}"},
    }
    turns = [
        *WEATHER,
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "name": "get_weather_mcp_server", "tool_call_id": "call_x", "content": "sunny"},
    ]
    status, raw = live_server.ask(
        "POST", "/v1/chat/completions", CHAT_OF_LIBRECHAT | {"tools": tools, "messages": turns}
    )
    assert status == 200 and chunks_of(raw)[-2]["choices"][0]["finish_reason"] == "stop"


def needs_package(name: str) -> pytest.MarkDecorator:
    """Skip where there is no node, or no such npm package in the folder that the environment names."""
    return pytest.mark.skipif(
        not (shutil.which("node") and (Path(PACKAGES) / name).is_dir()),
        reason=f"needs node, and in NODE_MODULES_FOLDER a folder node_modules with the npm package {name}",
    )


def run_node(script: str, server: LiveServer) -> dict[str, Any]:
    """What a script beside this file prints about a server."""
    environment = {**os.environ, "BASE_URL": f"{server.base_url}/v1", "NODE_MODULES_FOLDER": PACKAGES}
    words = ["node", str(Path(__file__).with_name(script))]
    run = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@needs_package("openai")
def test_the_npm_client(live_server: LiveServer) -> None:
    found = run_node("openai_js.mjs", live_server)
    assert MODEL in found["models"]
    assert found["streamed"] == found["whole"] == found["response"]
    assert found["streamedUsage"]["completion_tokens"] == found["usage"]["completion_tokens"]
    assert (found["call"]["name"], json.loads(found["call"]["arguments"])) == (
        "get_weather",
        {"city": "Paris"},
    )
    assert "sunny" in found["answered"]
    assert found["parsed"] == {"name": "Paris", "country": "France"}
    assert found["embedding"][0] == found["embedding"][1] > 1
    assert (found["unknown"], found["overflow"]) == (
        [404, "model_not_found"],
        [400, "context_length_exceeded"],
    )


@needs_package("@librechat/agents")
def test_librechats_agents(live_server: LiveServer) -> None:
    found = run_node("librechat.mjs", live_server)
    assert found["text"] and found["title"]
    usage = found["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    call, answer = found["tools"]
    assert (call["tool_call"]["name"], json.loads(call["tool_call"]["args"])) == (
        "get_weather",
        {"city": "Paris"},
    )
    assert call["tool_call"]["output"] == "sunny, 21 degrees" and "sunny" in answer["text"]
    assert found["overflow"][0] == "ContextOverflowError"
