"""Schemas as models read them, and arguments held against them."""

from __future__ import annotations

import pytest

from llm_local.tools.schemas import argument_faults, plain_schema

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}


def test_titles_go_and_a_parameter_called_title_stays() -> None:
    schema = {
        "title": "get",
        "properties": {"title": {"title": "Title", "type": "string", "default": {"title": "x"}}},
        "required": ["title"],
    }
    assert plain_schema(schema) == {
        "properties": {"title": {"type": "string", "default": {"title": "x"}}},
        "required": ["title"],
    }


def test_definitions_come_where_they_are_used() -> None:
    schema = {
        "$defs": {
            "Point": {"type": "object", "properties": {"color": {"$ref": "#/$defs/Color"}}},
            "Color": {"title": "Color", "enum": ["red"], "type": "string"},
        },
        "properties": {"at": {"$ref": "#/$defs/Point", "description": "Where"}},
    }
    color = {"enum": ["red"], "type": "string"}
    point = {"type": "object", "properties": {"color": color}, "description": "Where"}
    assert plain_schema(schema) == {"properties": {"at": point}}


def test_what_refers_to_itself_stays_a_reference() -> None:
    schema = {
        "$defs": {
            "Node": {"properties": {"next": {"$ref": "#/$defs/Other"}}},
            "Other": {"properties": {"back": {"$ref": "#/$defs/Node"}}},
        },
        "properties": {"node": {"$ref": "#/$defs/Node"}},
    }
    assert plain_schema(schema) == schema


def test_good_arguments_have_no_fault() -> None:
    assert argument_faults({"city": "Lyon", "days": 3}, CITY) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'city' is a required property"),
        ({"city": 3}, "city: 3 is not of type 'string'"),
        ({"city": "Lyon", "days": "3"}, "days: '3' is not of type 'integer'"),
        ({"city": "Lyon", "place": "x"}, "'place' was unexpected"),
    ],
)
def test_a_fault_says_where_and_what(arguments: dict, said: str) -> None:
    (fault,) = argument_faults(arguments, CITY)
    assert said in fault


def test_faults_are_few_and_short() -> None:
    faults = argument_faults({"city": ["x" * 9999], **{f"{n}": n for n in range(99)}}, CITY)
    assert 1 <= len(faults) <= 5
    assert all(len(fault) <= 300 for fault in faults)


@pytest.mark.parametrize(
    "schema",
    [{"type": "nonsense"}, {"$ref": "http://127.0.0.1:9/x"}, {"properties": 3}, {"$ref": "#/$defs/x"}],
)
def test_a_schema_that_is_none_allows_nothing_and_is_never_fetched(schema: dict) -> None:
    (fault,) = argument_faults({"city": "Lyon"}, schema)
    assert "schema cannot be used" in fault


def test_a_pattern_is_checked_where_it_can_be_read_and_left_to_the_tool_elsewhere() -> None:
    schema = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]+$"}}}
    assert argument_faults({"code": "AB"}, schema) == []
    (fault,) = argument_faults({"code": "ab"}, schema)
    assert fault == "code: 'ab' does not match '^[A-Z]+$'"
    (fault,) = argument_faults({"code": "\ud800"}, schema)
    assert "does not match" in fault
    for unread in ("(?!x)[A-Z]", "(a)\\1", "("):
        schema["properties"]["code"]["pattern"] = unread
        assert argument_faults({"code": "ab"}, schema) == []


def test_patterns_of_names() -> None:
    schema = {
        "properties": {"n": {"type": "integer"}},
        "patternProperties": {"^x_": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert argument_faults({"n": 1, "x_a": 2}, schema) == []
    assert argument_faults({"x_a": "2"}, schema) == ["x_a: '2' is not of type 'integer'"]
    (fault,) = argument_faults({"y": 1, "x_a": 2}, schema)
    assert "'y' was unexpected" in fault
    del schema["additionalProperties"]
    schema["additionalProperties"] = {"type": "string"}
    assert argument_faults({"y": "1"}, schema) == []
    assert argument_faults({"y": 1}, schema) == ["y: 1 is not of type 'string'"]


def test_what_no_schema_around_evaluates_is_refused_unless_patterns_may_speak_for_it() -> None:
    schema = {"allOf": [{"properties": {"n": {"type": "integer"}}}], "unevaluatedProperties": False}
    (fault,) = argument_faults({"n": 1, "y": 2}, schema)
    assert "'y' was unexpected" in fault
    assert argument_faults({"n": 1, "y": 2}, {**schema, "patternProperties": {"^z": {}}}) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"text": {"pattern": "^(a+)+$"}}},
        {"propertyNames": {"pattern": "^(a+)+$"}},
        {"patternProperties": {"^(a+)+$": {"type": "string"}}, "additionalProperties": False},
        {"patternProperties": {"^(a|a)*$": {}}, "unevaluatedProperties": False},
        {"$schema": "http://json-schema.org/draft-07/schema#", "patternProperties": {"^(a+)+$": False}},
    ],
)
def test_no_text_of_a_model_makes_a_pattern_take_long(schema: dict) -> None:
    """Python's own engine would take longer than the universe has existed."""
    long = "a" * 200 + "!"
    assert len(argument_faults({"text": long, long: 1}, schema)) <= 2


@pytest.mark.parametrize(
    "schema",
    [
        {"patternProperties": {"(": {}}},
        {"properties": {"city": {"multipleOf": 0.1}}},
        {"$schema": "nonsense", "type": 5},
        {"$schema": 5},
        {"properties": {"city": {"$ref": "#/properties/city"}}},
    ],
)
def test_no_schema_breaks_the_check(schema: dict) -> None:
    assert all(isinstance(fault, str) for fault in argument_faults({"city": 10**400}, schema))
