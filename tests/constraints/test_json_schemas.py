"""What of a JSON schema is enforced, what is narrowed, and what is refused by name."""

from __future__ import annotations

import json

import pytest

from llm_local.constraints.compiler import check_constraint
from llm_local.constraints.json_schemas import _ANNOTATIONS, _KNOWN, checked_schema, schema_grammar
from llm_local.errors import InvalidRequest
from llm_local.options import Constraint

UNENFORCED = [
    "uniqueItems",
    "not",
    "if",
    "then",
    "contains",
    "minContains",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "$dynamicRef",
    "$anchor",
    "maxlength",
    "nullable",
    "x-guidance",
]


@pytest.mark.parametrize("keyword", UNENFORCED)
def test_a_keyword_that_cannot_be_enforced_is_refused_by_name_and_place(keyword: str) -> None:
    schema = {"type": "object", "properties": {"a/b": {"type": "string", keyword: {}}}}
    with pytest.raises(InvalidRequest) as caught:
        schema_grammar(schema)
    assert repr(keyword) in caught.value.message
    assert "#/properties/a~1b" in caught.value.message
    assert caught.value.param == "constraint"


def test_a_property_may_have_the_name_of_any_keyword() -> None:
    names = [*UNENFORCED, "$ref", "allOf", "items", "const"]
    schema = {"type": "object", "properties": {name: {"type": "null"} for name in names}}
    assert list(checked_schema(schema)["properties"]) == names


def test_notes_are_taken() -> None:
    notes = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://a.b/c", "title": "t"}
    more = {
        "description": "d",
        "default": {"uniqueItems": True},
        "examples": [1],
        "x-order": 3,
        "deprecated": True,
    }
    assert checked_schema({"type": "string", **notes, **more})["type"] == "string"


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.org/schema.json",
        "file:///etc/passwd",
        "other.json",
        "#/$defs/missing",
        "#name",
        "#/examples/0",
    ],
)
def test_only_references_to_schemas_inside_are_followed(reference: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        schema_grammar({"$ref": reference, "$defs": {}, "examples": [{"uniqueItems": True}]})
    assert repr(reference) in caught.value.message


def test_references_inside_may_be_escaped_and_recursive() -> None:
    schema = {
        "$defs": {"a/b c": {"type": "object", "properties": {"next": {"$ref": "#/$defs/a~1b%20c"}}}},
        "$ref": "#/$defs/a~1b%20c",
    }
    assert checked_schema(schema)["$ref"] == "#/$defs/a~1b%20c"


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"const": 2**53 + 1}, "float64"),
        ({"enum": [{"a": [-(2**60)]}]}, "float64"),
        ({"type": "integer", "minimum": 10**17}, "float64"),
        ({"type": "array", "minItems": 10_001}, "minItems"),
        ({"type": "string", "pattern": "a{10001}"}, "10001"),
        ({"type": "object", "patternProperties": {"a{2,99999}": {}}}, "99999"),
        ({"type": "string", "pattern": "a\\"}, "backslash"),
        ({"type": "object", "patternProperties": {"\\\\\\": {}}}, "backslash"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({"type": "object", "properties": {"a": 3}}, "#/properties/a"),
        ({"type": "object", "properties": []}, "properties"),
        ({"anyOf": {}}, "anyOf"),
    ],
)
def test_what_would_be_kept_wrongly_is_refused(schema: dict, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        schema_grammar(schema)


@pytest.mark.parametrize("value", [None, 5, -1, 1.5, "x", [1], {"a": 5}])
def test_a_keyword_of_a_wrong_shape_is_refused_or_means_something(value: object) -> None:
    """No other error than the one that names what is wrong."""
    refused = set()
    for keyword in sorted(_KNOWN - _ANNOTATIONS):
        schema = {"type": ["object", "array", "string", "integer"], keyword: value}
        try:
            check_constraint(Constraint("json_schema", schema))
        except InvalidRequest as error:
            assert error.param == "constraint"
            refused.add(keyword)
    assert {"$ref", "allOf", "anyOf", "enum", "properties"} - {"enum" if value == [1] else ""} <= refused


def test_an_object_that_lists_its_properties_has_no_others() -> None:
    listed = {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    assert checked_schema(listed)["additionalProperties"] is False
    assert checked_schema({"type": "array", "items": listed})["items"]["additionalProperties"] is False


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {}}, "required": ["b"]},
        {"type": "object", "properties": {"a": {}}, "patternProperties": {"^b": {}}},
        {"allOf": [{"type": "object", "properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["b"]}, {"required": ["c"]}]},
    ],
)
def test_an_object_that_may_need_others_keeps_them(schema: dict) -> None:
    assert json.dumps(checked_schema(schema)) == json.dumps(schema)


def test_the_schema_of_the_caller_is_left_alone() -> None:
    schema = {"type": "object", "properties": {"a": {}}}
    checked_schema(schema)
    assert schema == {"type": "object", "properties": {"a": {}}}
