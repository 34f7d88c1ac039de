"""The lines of a batch: what is taken, and what is refused by which name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolCall
from llm_local.options import GenerationOptions
from llm_local.terminal.batch_lines import OPTION_NAMES, BatchRequest, read_fields, read_request, split_lines
from llm_local.terminal.piped_input import MAX_INPUT_BYTES


def request(data: Any, *, raw: bool = False) -> BatchRequest:
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return read_request(read_fields(data), raw=raw)


def test_lines_are_counted_as_an_editor_counts() -> None:
    lines = split_lines(b'\xef\xbb\xbf{"a"}\r\n\n  \t\n\xe2\x80\xa8x\r\n last')
    assert [(line.number, line.data) for line in lines] == [
        (1, b'{"a"}'),
        (4, b"\xe2\x80\xa8x"),
        (5, b"last"),
    ]
    assert split_lines(b"") == split_lines(b"\n\n") == split_lines(b"\xef\xbb\xbf") == []


def test_the_digest_knows_content_and_not_line_ends() -> None:
    one, two, three = split_lines(b'{"prompt": "a"}\r\n{"prompt": "a"}\n{"prompt": "b"}')
    assert one.digest == two.digest != three.digest


def test_a_prompt_with_options() -> None:
    options = {"temperature": 0, "max_new_tokens": 5, "stop": "x", "logit_bias": {"7": -1.5}, "seed": None}
    got = request({"prompt": "Hi", "id": 7, **options})
    assert got.question == "Hi"
    assert got.options == {**options, "stop": ("x",), "logit_bias": {7: -1.5}}
    assert GenerationOptions().replace(**got.options).max_new_tokens == 5
    assert request({"prompt": "Hi", "stop": ["a", "b"]}).options == {"stop": ("a", "b")}


def test_every_reported_option_is_taken() -> None:
    assert {"max_new_tokens", "temperature", "seed", "stop"} < set(OPTION_NAMES)
    known = set(GenerationOptions.__dataclass_fields__)
    # a constraint is for the whole batch: its flags say it; a line brings no tools to choose from
    assert known - set(OPTION_NAMES) == {"constraint", "logprobs", "top_logprobs", "tool_choice"}


def test_messages_are_strict_values() -> None:
    call = {"id": "1", "name": "f", "arguments": {"x": 1}}
    got = request(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "assistant", "content": "", "reasoning": "Hm.", "tool_calls": [call], "name": None},
                {"role": "tool", "content": "2", "tool_call_id": "1"},
            ]
        }
    )
    assert got.question == (
        Message("system", "Be brief."),
        Message("assistant", "", reasoning="Hm.", tool_calls=(ToolCall("1", "f", {"x": 1}),)),
        Message("tool", "2", tool_call_id="1"),
    )


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"prompt": "x", "foo": 1}, "foo"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        (b'{"prompt": "\\ud800"}', "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "messages": [USER]}, "prompt"),
        ({"messages": "x"}, "messages"),
        ({"messages": [USER, 3]}, "messages[1]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": 3, "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{**USER, "images": []}]}, "messages[0].images"),
        (
            {"messages": [{**USER, "tool_calls": [{"id": "1", "name": "f"}]}]},
            "messages[0].tool_calls[0].arguments",
        ),
        ({"prompt": "x", "id": True}, "id"),
        ({"prompt": "x", "id": [1]}, "id"),
        ({"prompt": "x", "id": 10**30}, "id"),
        ({"prompt": "x", "stop": [1]}, "stop[0]"),
        ({"prompt": "x", "stop": 1}, "stop"),
        ({"prompt": "x", "logit_bias": {"-1": 1}}, "logit_bias"),
        ({"prompt": "x", "logit_bias": [1]}, "logit_bias"),
        (b'{"prompt": "a", "prompt": "b"}', "prompt"),
    ],
)
def test_a_mistake_is_refused_by_name(data: Any, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        request(data)
    assert caught.value.param == name
    assert name.split(".")[-1].split("[")[0] in caught.value.message


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"{", "JSON at character 2"),
        (b'{"prompt": "x"} {}', "JSON at character 17"),
        (b"[1]", "no JSON object"),
        (b'"x"', "no JSON object"),
        (b'{"prompt": "\xff"}', "UTF-8 at byte 13"),
        (b'{"prompt": "x", "temperature": NaN}', "NaN"),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 200_000, "nested"),
        (b'"' + b"x" * MAX_INPUT_BYTES + b'"', str(MAX_INPUT_BYTES)),
    ],
)
def test_what_is_no_object_says_where(data: bytes, part: str) -> None:
    with pytest.raises(InvalidRequest, match=part):
        read_fields(data)


def test_raw_takes_a_prompt_as_it_is_and_no_messages() -> None:
    assert request({"prompt": " \n"}, raw=True).question == " \n"
    with pytest.raises(InvalidRequest, match="--raw"):
        request({"messages": [USER]}, raw=True)
