"""The events of a stream are Anthropic's, in its order, and add up to the message."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_local.api.anthropic.answers import MessageEvents, new_message
from llm_local.events import Delta, Event, Finish, FinishReason, Progress, Timings, ToolCallEvent, Usage
from llm_local.messages import ToolCall

CALL = ToolCallEvent(ToolCall("abcdefghi", "weather", {"city": "Zürich"}))
BLOCK = {"type": "tool_use", "id": "toolu_abcdefghi", "name": "weather"}


def end(reason: FinishReason = "stop", stop: str | None = None) -> Finish:
    return Finish(reason, Usage(7, 5, 4), Timings(), stop)


def told(*events: Event, stops: tuple[str, ...] = (), **more: Any) -> tuple[list[Any], dict[str, Any]]:
    """The events behind the first two, and the message."""
    made = MessageEvents(new_message("m", 7), stops, **more)
    first, ping = made.begin()
    assert (first["type"], ping) == ("message_start", {"type": "ping"})
    return [one for event in events for one in made.feed(event)], made.message


def test_the_first_event_is_the_message_before_anything_has_come() -> None:
    message = new_message("m", 7, ["Mind the gap.", "", "Mind the gap."])
    first = MessageEvents(message).begin()[0]["message"]
    assert first.pop("id").startswith("msg_")
    assert first == {
        "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "warnings": ["Mind the gap."],
        "usage": {
            "input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0
        },
    }  # fmt: skip


def test_a_text_and_the_end() -> None:
    events, message = told(
        Progress("prefill", 1, 7),
        Delta("content", "Hel", (1,)),
        Delta("content", "", (2,)),
        Delta("content", "lo", (3,)),
        end(),
    )
    usage = {
        "input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 4,
        "output_tokens_details": {"thinking_tokens": 0}, "cached_tokens": 5,
    }  # fmt: skip
    assert events == [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": usage,
        },
        {"type": "message_stop"},
    ]
    assert (message["content"], message["usage"]) == ([{"type": "text", "text": "Hello"}], usage)


def test_reasoning_text_and_calls_are_blocks_of_their_own() -> None:
    events, message = told(
        Delta("reasoning", "Hm", (1,)),
        Delta("reasoning", "m.", (2, 3)),
        Delta("content", "I ask.", (4,)),
        CALL,
        end("tool_calls"),
    )
    signature = message["content"][0]["signature"]
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hmm.", "signature": signature},
        {"type": "text", "text": "I ask."},
        {**BLOCK, "input": {"city": "Zürich"}},
    ]
    assert message["stop_reason"] == "tool_use" and len(signature) > 20
    assert message["usage"]["output_tokens_details"] == {"thinking_tokens": 3}
    kinds = [(one["type"], one.get("index"), one.get("delta", {}).get("type")) for one in events]
    assert kinds == [
        ("content_block_start", 0, None),
        ("content_block_delta", 0, "thinking_delta"),
        ("content_block_delta", 0, "thinking_delta"),
        ("content_block_delta", 0, "signature_delta"),
        ("content_block_stop", 0, None),
        ("content_block_start", 1, None),
        ("content_block_delta", 1, "text_delta"),
        ("content_block_stop", 1, None),
        ("content_block_start", 2, None),
        ("content_block_delta", 2, "input_json_delta"),
        ("content_block_stop", 2, None),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]
    assert events[0]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert events[8]["content_block"] == {**BLOCK, "input": {}}
    assert json.loads(events[9]["delta"]["partial_json"]) == {"city": "Zürich"}


def test_reasoning_that_is_not_wanted_has_no_text() -> None:
    events, message = told(Delta("reasoning", "Hm.", (1,)), end(), hides_thinking=True)
    assert message["content"][0]["thinking"] == "" and message["content"][0]["signature"]
    assert "thinking_delta" not in [one.get("delta", {}).get("type") for one in events]


def test_why_it_ended() -> None:
    def reason(finish: Finish) -> tuple[str, str | None]:
        message = told(finish, stops=("END",))[1]
        return message["stop_reason"], message["stop_sequence"]

    assert reason(end("stop")) == ("end_turn", None)
    assert reason(end("stop", "END")) == ("stop_sequence", "END")
    assert reason(end("stop", "\nUser:")) == ("end_turn", None)  # the model's own
    assert reason(end("length")) == ("max_tokens", None)
    assert reason(end("tool_calls", "END")) == ("tool_use", None)


def test_an_answer_without_anything_has_an_empty_text() -> None:
    events, message = told(end())
    assert message["content"] == [{"type": "text", "text": ""}]
    assert [one["type"] for one in events] == [
        "content_block_start", "content_block_stop", "message_delta", "message_stop"
    ]  # fmt: skip


PIECES = st.one_of(
    st.builds(Delta, st.sampled_from(["content", "reasoning"]), st.text(max_size=3), st.just((1,))),
    st.just(CALL),
)


@given(st.lists(PIECES, max_size=12))
def test_a_stream_adds_up_to_the_message(pieces: list[Event]) -> None:
    events, message = told(*pieces, end())
    blocks: list[dict[str, Any]] = []
    json_text = ""
    for one in events:
        delta = one.get("delta", {})
        if one["type"] == "content_block_start":
            assert one["index"] == len(blocks)
            blocks.append(dict(one["content_block"]))
            json_text = ""
        elif one["type"] == "content_block_delta":
            assert one["index"] == len(blocks) - 1
            json_text += delta.get("partial_json", "")
            for name in ("text", "thinking", "signature"):
                if name in delta:
                    blocks[-1][name] += delta[name]
        elif one["type"] == "content_block_stop" and json_text:
            blocks[-1]["input"] = json.loads(json_text)
    assert blocks == message["content"]
    assert [one["type"] for one in events[-2:]] == ["message_delta", "message_stop"]
