"""Bodies: strict JSON with bounds, models that coerce nothing, and errors that echo nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field, ValidationError

from llm_local.api.bodies import DialectModel, ignored_names, json_body, parse_json, unknown_names, validate
from llm_local.errors import InvalidRequest

SECRET = "canary-3141592653589793"


class Part(DialectModel):
    kind: str
    size: int = 0


class Body(DialectModel):
    name: str
    temperature: float | None = Field(default=None, ge=0)
    parts: list[Part] = Field(default_factory=list, max_length=3)
    either: str | list[Part] | None = None


def refusal(body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        validate(Body, body)
    return raised.value


def test_an_object_comes_through_whole() -> None:
    body = {"a": [1, -2.5, None, True, {"b": "\u00e9\U0001f600\x00"}], "c": {}}
    assert parse_json(json.dumps(body).encode()) == body
    assert parse_json(b' {"big": 12345678901234567890, "pair": "\\ud83d\\ude00"} ') == {
        "big": 12345678901234567890,
        "pair": "\U0001f600",
    }


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e400}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"a": 1, "a": 2}', "repeats a key"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"\\udfff": 1}', "lone surrogate"),
        (b"[1]", "array"),
        (b'"text"', "string"),
        (b"null", "null"),
        (b"true", "boolean"),
        (b"1", "number"),
        (b'{"a":' * 100_000, "deep"),
        (b'{"a":' * 80 + b"1" + b"}" * 80, "deep"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deep"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"a": [' + b"1," * 2_000_000 + b"1]}", "values"),
    ],
)
def test_what_is_no_json_object_of_ours_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as raised:
        parse_json(raw)
    assert raised.value.kind == "invalid_json"


def test_nesting_up_to_the_bound_is_taken() -> None:
    assert parse_json(b'{"a":' * 63 + b"{}" + b"}" * 63)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": 1}, "name"),
        ({"name": None}, "name"),
        ({"name": "n", "temperature": True}, "temperature"),
        ({"name": "n", "temperature": "1"}, "temperature"),
        ({"name": "n", "temperature": float("nan")}, "temperature"),
        ({"name": "n", "temperature": -1}, "temperature"),
        ({"name": "n", "parts": [{"kind": "a"}, {"kind": "b", "size": 1.5}]}, "parts[1].size"),
        ({"name": "n", "parts": [{}]}, "parts[0].kind"),
        ({"name": "n", "parts": [{"kind": "x"}] * 4}, "parts"),
        ({"name": "n", "either": [{"kind": 1}]}, "either[0].kind"),
        ({"name": "n", "either": 5}, "either"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(body: dict[str, Any], param: str) -> None:
    error = refusal(body)
    assert error.param == param
    assert param in error.message


def test_one_wrong_item_is_enough() -> None:
    class Large(DialectModel):
        either: str | list[str] | list[int] | list[list[int]] = ""
        parts: list[Part] = []
        by_name: dict[str, list[Part] | float] = {}

    for body in (
        {"either": [1.5] * 1000},
        {"parts": [{}] * 1000},
        {"by_name": dict.fromkeys(map(str, range(1000)), [{}] * 1000)},
    ):
        with pytest.raises(ValidationError) as raised:
            Large.model_validate(body)
        assert raised.value.error_count() < 5  # each costs as much as a hundred right items


def test_a_missing_field_is_said_to_be_missing() -> None:
    assert refusal({}).kind == "missing_field"
    assert refusal({"name": 5}).kind == "invalid_value"


def test_a_bound_is_said_in_plain_words() -> None:
    assert refusal({"name": "n", "parts": [{"kind": "x"}] * 4}).message.startswith(
        "parts should have at most 3 items"
    )


def test_no_value_is_echoed() -> None:
    for body in (
        {"name": [SECRET]},
        {"name": "n", "temperature": SECRET},
        {"name": "n", "parts": [{"kind": {SECRET: 1}}]},
    ):
        assert SECRET not in str(refusal(body))


def test_unknown_fields_are_kept_and_named_with_their_paths() -> None:
    body = validate(Body, {"name": "n", "user": "u", "parts": [{"kind": "k", "cache_control": {}}]})
    assert set(unknown_names(body)) == {"user", "parts[0].cache_control"}
    assert ignored_names(body, "temperature", "name") == ("name", "user", "parts[0].cache_control")


def test_a_name_that_is_none_cannot_break_a_header() -> None:
    body = validate(Body, {"name": "n", "a\r\nset-cookie: x": 1, "\u00e9" * 100: 2})
    assert set(ignored_names(body)) == {"?"}


def test_no_more_names_are_told_than_a_header_takes() -> None:
    body = validate(Body, {"name": "n", **dict.fromkeys((f"x{number}" for number in range(1000)), 1)})
    assert len(ignored_names(body, "name")) == 32


def test_the_document_refers_to_schemas_it_brings_along() -> None:
    content = json_body(Body, small={"name": "n"})["requestBody"]["content"]["application/json"]
    assert content["examples"] == {"small": {"value": {"name": "n"}}}
    assert "Part" in content["schema"]["$defs"]
    assert "#/components/schemas/Part" in json.dumps(content["schema"])
