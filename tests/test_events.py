"""`fold` turns a stream into an answer; what it keeps, and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import get_args

import pytest

from llm_local.errors import EngineError, NumericalError
from llm_local.events import (
    Completion,
    Delta,
    Event,
    Finish,
    FinishReason,
    Progress,
    Timings,
    TokenLogprob,
    ToolCallEvent,
    Usage,
    fold,
)
from llm_local.messages import ToolCall

USAGE = Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=5)
TIMINGS = Timings(0.1, 0.2, 0.3, 0.4, 0.5)
FINISH = Finish("stop", USAGE, TIMINGS)
CALLS = [ToolCall("1", "clock", {}), ToolCall("2", "sum", {"a": 1})]


def logprob(token_id: int) -> TokenLogprob:
    return TokenLogprob(token_id, -0.5, ((token_id, -0.5), (0, -2.0)))


def test_fold_keeps_everything_in_order() -> None:
    stream: list[Event] = [
        Progress("prefill", 9, 9),
        Delta("reasoning", "so ", (1,), (logprob(1),)),
        Delta("content", "Hel", (2, 3), (logprob(2), logprob(3))),
        ToolCallEvent(CALLS[0]),
        Delta("reasoning", "then", (4,), (logprob(4),)),
        Delta("content", "lo", (5,), (logprob(5),)),
        ToolCallEvent(CALLS[1]),
        FINISH,
    ]
    assert fold(stream) == Completion(
        text="Hello",
        reasoning="so then",
        tool_calls=tuple(CALLS),
        token_ids=(1, 2, 3, 4, 5),
        logprobs=tuple(logprob(i) for i in range(1, 6)),
        finish_reason="stop",
        usage=USAGE,
        timings=TIMINGS,
    )


def test_the_empty_answer_is_an_answer() -> None:
    completion = fold([FINISH])
    assert (completion.text, completion.reasoning, completion.tool_calls, completion.token_ids) == (
        "",
        "",
        (),
        (),
    )


@pytest.mark.parametrize("size", range(1, 12))
def test_however_the_text_is_cut_the_answer_is_the_same(size: int) -> None:
    text = "a\u0301 👩‍👩‍👧 \n\n`x`"
    pieces = [Delta("content", text[i : i + size], (i,)) for i in range(0, len(text), size)]
    assert fold([*pieces, FINISH]).text == text


def test_held_back_tokens_come_with_the_next_text() -> None:
    completion = fold([Delta("content", "", (240, 159)), Delta("content", "🙂", (153, 130)), FINISH])
    assert (completion.text, completion.token_ids) == ("🙂", (240, 159, 153, 130))


@pytest.mark.parametrize("reason", get_args(FinishReason))
def test_every_finish_reason_arrives(reason: FinishReason) -> None:
    assert fold([Finish(reason, USAGE, TIMINGS)]).finish_reason == reason


@pytest.mark.parametrize("stream", [[], [Delta("content", "cut off")], [Progress("loading", 1, None, "x")]])
def test_a_stream_without_finish_is_an_error_not_a_short_answer(stream: list[Event]) -> None:
    with pytest.raises(EngineError, match="without a Finish"):
        fold(stream)


def test_a_failure_in_the_stream_passes_through() -> None:
    def failing() -> Iterator[Event]:
        yield Delta("content", "some ")
        raise NumericalError("The model produced NaN.")

    with pytest.raises(NumericalError):
        fold(failing())


def test_fold_stops_reading_at_the_finish() -> None:
    stream = iter([FINISH, Delta("content", "after the end")])
    assert fold(stream).text == ""
    assert list(stream) == [Delta("content", "after the end")]


def test_total_tokens_is_what_the_model_saw() -> None:
    assert USAGE.total_tokens == 14
    assert Usage().total_tokens == 0


@pytest.mark.parametrize("event", [FINISH, Delta("content", "x"), Progress("queued", 1, 2), USAGE, TIMINGS])
def test_events_are_frozen(event: object) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, dataclasses.fields(event)[0].name, None)  # type: ignore[arg-type]
