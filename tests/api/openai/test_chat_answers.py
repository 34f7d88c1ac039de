"""Chat answers as OpenAI's clients read them; streamed ones add up to whole ones."""

from __future__ import annotations

import json
import math
from typing import Any

from llm_local.api.openai.answers import Head, Tally
from llm_local.api.openai.chat_answers import ChatChunks, chat_choice, usage_chunk
from llm_local.events import (
    Delta,
    Event,
    Finish,
    Progress,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
    fold,
)
from llm_local.messages import ToolCall

HEAD = Head("chatcmpl-1", "chat.completion.chunk", 5, "m", "fp_1")
END = Finish("stop", Usage(10, 4, 3), Timings())
CALLS = [
    ToolCallDelta(0, "abcdefgh1", "f", '{"city": "Zür'),
    ToolCallDelta(0, "abcdefgh1", "f", 'ich"}'),
    ToolCallEvent(ToolCall("abcdefgh1", "f", {"city": "Zürich"})),
    ToolCallEvent(ToolCall("abcdefgh2", "g", {})),
    Finish("tool_calls", Usage(10, 0, 9), Timings()),
]


def token_bytes(token_id: int) -> bytes:
    return bytes([token_id])


def chunks(events: list[Event], **options: Any) -> list[dict[str, Any]]:
    writer = ChatChunks(HEAD, 0, **options)
    return [writer.begin(), *(chunk for event in events for chunk in writer.feed(event))]


def deltas(events: list[Event]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(events)]


def test_a_stream_says_the_role_once_and_the_reason_last() -> None:
    events = [
        Progress("queued", 1, 2),
        Progress("prefill", 5, 5),
        Delta("content", "Hel"),
        Delta("content", "lo"),
        END,
    ]
    found = chunks(events)
    assert found[0] == {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m", "system_fingerprint": "fp_1",
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        ],
    }  # fmt: skip
    assert deltas(events)[1:] == [{"content": "Hel"}, {"content": "lo"}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, None, None, "stop"]


def test_reasoning_has_a_field_of_its_own() -> None:
    events = [Delta("reasoning", "Hm."), Delta("content", "4"), END]
    assert deltas(events)[1:] == [{"reasoning_content": "Hm."}, {"content": "4"}, {}]
    message = chat_choice(0, fold(events), None)["message"]
    assert message == {"role": "assistant", "content": "4", "refusal": None, "reasoning_content": "Hm."}


def test_text_that_is_held_back_makes_no_chunk() -> None:
    assert deltas([Delta("content", "", (1, 2)), END])[1:] == [{}]


def test_calls_have_an_index_and_their_id_once() -> None:
    first, rest, second, _, end = deltas(CALLS)[1:]
    assert first == {
        "tool_calls": [
            {
                "index": 0,
                "id": "call_abcdefgh1",
                "type": "function",
                "function": {"name": "f", "arguments": ""},
            }
        ]
    }
    assert rest == {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Zürich"}'}}]}
    assert (second["tool_calls"][0]["index"], second["tool_calls"][0]["id"]) == (1, "call_abcdefgh2")
    assert end == {}


def test_a_whole_answer_with_calls_has_no_content() -> None:
    choice = chat_choice(0, fold(CALLS), None)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [one, two] = choice["message"]["tool_calls"]
    assert json.loads(one["function"]["arguments"]) == {"city": "Zürich"}
    assert two["function"] == {"name": "g", "arguments": "{}"}
    assert "tool_calls" not in chat_choice(0, fold([END]), None)["message"]


def test_one_logprob_for_each_token_wherever_its_text_went() -> None:
    snow = "☃".encode()
    first, rest = TokenLogprob(snow[0], -0.5, ((snow[0], -0.5), (65, -math.inf))), TokenLogprob(snow[1], -1.5)
    events = [
        Delta("content", "A", (65,), (TokenLogprob(65, -0.25),)),
        Delta("content", "☃", tuple(snow), (first, rest, rest)),
        Delta("content", "", (33,), (TokenLogprob(33, -2.0),)),
        END,
    ]
    found = chunks(events, token_bytes=token_bytes)
    streamed = [
        entry for chunk in found for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    whole = chat_choice(0, fold(events), token_bytes)["logprobs"]["content"]
    assert streamed == whole
    assert [entry["logprob"] for entry in whole] == [-0.25, -0.5, -1.5, -1.5, -2.0]
    assert whole[0] == {"token": "A", "logprob": -0.25, "bytes": [65], "top_logprobs": []}
    assert (whole[1]["token"], whole[1]["bytes"]) == ("\N{REPLACEMENT CHARACTER}", [snow[0]])
    assert whole[1]["top_logprobs"][1] == {"token": "A", "logprob": -9999.0, "bytes": [65]}
    json.dumps(whole, allow_nan=False)


def test_the_chunk_with_the_counts_has_no_choices_and_all_others_say_null() -> None:
    assert all(chunk["usage"] is None for chunk in chunks([Delta("content", "x"), END], with_usage=True))
    assert "usage" not in chunks([END])[0]
    last = usage_chunk(HEAD, {"prompt_tokens": 1})
    assert (last["choices"], last["usage"]) == ([], {"prompt_tokens": 1})


def test_choices_share_a_prompt_and_sum_what_they_sampled() -> None:
    tally = Tally()
    for event in [Delta("reasoning", "x", (1, 2)), Finish("stop", Usage(10, 0, 5), Timings())]:
        tally.feed(event)
    tally.feed(Finish("stop", Usage(10, 9, 3), Timings()))
    assert tally.usage == {
        "prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    tally.feed(Finish("stop", Usage(7, 2, 1), Timings()), prompt=1)
    assert (tally.prompt_tokens, tally.cached_tokens, tally.completion_tokens) == (17, 2, 9)
