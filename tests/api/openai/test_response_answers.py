"""The events of the Responses API: numbered, placed, and in the end the whole answer."""

from __future__ import annotations

from typing import Any

from openai.types.responses import Response

from llm_local.api.bodies import validate
from llm_local.api.openai.response_answers import ResponseEvents, response_body
from llm_local.api.openai.response_schemas import ResponsesRequest
from llm_local.events import Delta, Event, Finish, Timings, TokenLogprob, ToolCallEvent, Usage
from llm_local.messages import ToolCall
from llm_local.options import GenerationOptions

END = Finish("stop", Usage(10, 4, 6), Timings())
EVENTS: list[Event] = [
    Delta("reasoning", "Hm", (1, 2)),
    Delta("reasoning", "m.", (3,)),
    Delta("content", "I'll", (4,), (TokenLogprob(65, -0.5),)),
    Delta("content", " ask.", (5,)),
    ToolCallEvent(ToolCall("abcdefgh1", "f", {"a": 1})),
    Finish("tool_calls", Usage(10, 4, 6), Timings()),
]


def writer(**fields: Any) -> ResponseEvents:
    request = validate(ResponsesRequest, {"model": "m", "input": "Hi", **fields})
    token_bytes = (lambda token_id: bytes([token_id])) if "include" in fields else None
    return ResponseEvents(response_body(request, GenerationOptions(temperature=0.5, top_p=0.9)), token_bytes)


def run(events: list[Event], **fields: Any) -> list[dict[str, Any]]:
    found = writer(**fields)
    return found.begin() + [one for event in events for one in found.feed(event)]


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_every_event_of_an_answer_in_order() -> None:
    found = run(EVENTS)
    assert types(found) == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert [event["output_index"] for event in found if "output_index" in event] == [0] * 7 + [1] * 7 + [
        2
    ] * 4
    assert (found[0]["response"]["output"], found[0]["response"]["status"]) == ([], "in_progress")


def test_the_last_event_has_the_whole_answer() -> None:
    answer = run(EVENTS)[-1]["response"]
    reasoning, message, call = answer["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hmm."}]
    assert message["content"] == [
        {"type": "output_text", "text": "I'll ask.", "annotations": [], "logprobs": []}
    ]
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_abcdefgh1", "f", '{"a": 1}')
    assert [item.get("status") for item in answer["output"]] == [None, "completed", "completed"]
    assert answer["usage"] == {
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 6, "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 16,
    }  # fmt: skip
    parsed = Response.model_validate(answer)
    assert (parsed.output_text, parsed.status) == ("I'll ask.", "completed")


def test_what_was_asked_for_is_repeated_and_options_are_those_that_hold() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    answer = run(
        [END], instructions="Be brief.", tools=[tool], text={"format": schema}, metadata={"a": "b"}, user="u",
        max_output_tokens=9, parallel_tool_calls=False, truncation="auto", reasoning={"effort": "low"},
    )[-1]["response"]  # fmt: skip
    assert answer["tools"] == [tool | {"description": None}]
    assert (answer["text"], answer["metadata"], answer["user"]) == ({"format": schema}, {"a": "b"}, "u")
    assert (answer["instructions"], answer["max_output_tokens"]) == ("Be brief.", 9)
    assert (answer["parallel_tool_calls"], answer["truncation"]) == (False, "auto")
    assert (answer["temperature"], answer["top_p"], answer["store"]) == (0.5, 0.9, False)
    Response.model_validate(answer)


def test_a_cut_answer_says_so() -> None:
    found = run([Delta("content", "Once"), Finish("length", Usage(3, 0, 1), Timings())])
    assert found[-1]["type"] == "response.incomplete"
    answer = found[-1]["response"]
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["output"][0]["status"] == "incomplete"


def test_an_empty_answer_is_an_empty_message() -> None:
    answer = run([END])[-1]["response"]
    assert answer["output"][0]["content"][0]["text"] == ""


def test_logprobs_where_they_are_asked_for() -> None:
    found = run(EVENTS, include=["message.output_text.logprobs"])
    part = found[-1]["response"]["output"][1]["content"][0]
    assert part["logprobs"] == [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}]
    assert [one["logprobs"] for one in found if one["type"] == "response.output_text.delta"][0] == part[
        "logprobs"
    ]


def test_a_failure_ends_the_stream_with_the_answer_it_spoils() -> None:
    found = writer()
    found.begin()
    found.feed(Delta("content", "Once"))
    failed = found.fail("server_error", "It broke.")
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "It broke."}
    Response.model_validate(failed["response"])
