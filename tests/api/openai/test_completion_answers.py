"""Completions and the older shape of log-probabilities."""

from __future__ import annotations

from typing import Any

from llm_local.api.openai.answers import Head
from llm_local.api.openai.completion_answers import CompletionChunks, Echo, whole_choice
from llm_local.api.openai.token_logprobs import CompletionLogprobs
from llm_local.events import Delta, Finish, Timings, TokenLogprob, Usage

HEAD = Head("cmpl-1", "text_completion", 5, "m", "fp_1")
END = Finish("length", Usage(2, 0, 3), Timings())


def token_bytes(token_id: int) -> bytes:
    return bytes([token_id])


def choice(events: list[Any], top: int | None = None, echo: Echo | None = None) -> dict[str, Any]:
    logprobs = None if top is None else CompletionLogprobs(token_bytes, top=top)
    writer = CompletionChunks(HEAD, 0, echo=echo, logprobs=logprobs)
    return whole_choice([*writer.begin(), *(chunk for event in events for chunk in writer.feed(event))])


def one(character: str, logprob: float, top: tuple[tuple[int, float], ...] = ()) -> TokenLogprob:
    return TokenLogprob(ord(character), logprob, top)


def test_text_alone() -> None:
    events = [Delta("content", "b", (98,)), Delta("content", "", (0,)), Delta("content", "c", (99,)), END]
    assert choice(events) == {"text": "bc", "index": 0, "logprobs": None, "finish_reason": "length"}


def test_tokens_with_offsets_and_alternatives() -> None:
    events = [
        Delta("content", "b", (98,), (one("b", -1.0, ((97, -0.5), (98, -1.0))),)),
        Delta("content", "é", (195, 169), (TokenLogprob(195, -2.0), TokenLogprob(169, -3.0))),
        END,
    ]
    found = choice(events, top=2)["logprobs"]
    assert found["token_logprobs"] == [-1.0, -2.0, -3.0]
    assert found["text_offset"] == [0, 1, 1]
    assert found["tokens"] == ["b", "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"]
    assert found["top_logprobs"][0] == {"a": -0.5, "b": -1.0}
    assert choice(events, top=0)["logprobs"]["top_logprobs"] is None


def test_an_echo_goes_in_front_and_its_first_token_has_no_logprob() -> None:
    echo = Echo("ab", ((97, None), (98, one("b", -0.5, ((99, -0.1),)))))
    found = choice([Delta("content", "c", (99,), (one("c", -0.1),)), END], top=1, echo=echo)
    assert found["text"] == "abc"
    assert found["logprobs"]["token_logprobs"] == [None, -0.5, -0.1]
    assert found["logprobs"]["top_logprobs"] == [None, {"c": -0.1, "b": -0.5}, {"c": -0.1}]
    assert found["logprobs"]["text_offset"] == [0, 1, 2]
    assert choice([END], echo=Echo("ab"))["text"] == "ab"
