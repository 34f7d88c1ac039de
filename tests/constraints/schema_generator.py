"""JSON schemas by the seed: bounded ones, whose every value has a longest spelling."""

from __future__ import annotations

import random
from typing import Any

WORDS = [
    "id",
    "name",
    "größe",
    "价格",
    "a b",
    "x/y",
    "tag~1",
    'na"me',
    "line\nbreak",
    "_",
    "key",
    "on",
    "size",
]
PATTERNS = ["^[a-z]{1,5}$", "^[A-Z]{2}-[0-9]{1,4}$", "^(red|green|blue)$", "^\\d{3}$", "^[^\\s]{2,8}$"]
FORMATS = ["date", "time", "date-time", "uuid", "ipv4", "ipv6"]


def make_schema(seed: int) -> dict[str, Any]:
    """A bounded schema of up to four levels."""
    draw = random.Random(seed)
    schema = _any_schema(draw, 0)
    if "allOf" in str(schema) or "minLength': 1}, {" in str(schema):
        _close(schema)
    if draw.random() < 0.2:
        schema = {"$defs": {"part": schema}, "$ref": "#/$defs/part"}
    if draw.random() < 0.3:
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["description"] = "made by a seed"
    return schema


def _close(schema: Any) -> None:
    """Beside schemas made of parts, objects have others unless they say that they have none."""
    for one in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _close(one)
    if isinstance(schema, dict) and schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)


def _any_schema(draw: random.Random, depth: int) -> dict[str, Any]:
    simple = [_text, _number, _integer, _listed, _constant, _plain]
    nested = [_object, _object, _list, _tuple, _one_of_types, _either, _all]
    return draw.choice(simple if depth >= 3 else nested if depth == 0 else simple + nested)(draw, depth)


def _text(draw: random.Random, depth: int) -> dict[str, Any]:
    kind = draw.random()
    if kind < 0.3:
        return {"type": "string", "pattern": draw.choice(PATTERNS)}
    if kind < 0.5:
        return {"type": "string", "format": draw.choice(FORMATS)}
    shortest = draw.randrange(4)
    return {"type": "string", "minLength": shortest, "maxLength": shortest + draw.randrange(8)}


def _number(draw: random.Random, depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "number"}
    if draw.random() < 0.7:
        low = round(draw.uniform(-1000, 1000), draw.randrange(4))
        schema[draw.choice(["minimum", "exclusiveMinimum"])] = low
        schema[draw.choice(["maximum", "exclusiveMaximum"])] = low + draw.choice([0.5, 1, 250.25])
    return schema


def _integer(draw: random.Random, depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    if draw.random() < 0.7:
        schema["minimum"] = draw.randrange(-500, 500)
    if draw.random() < 0.7:
        schema["maximum"] = schema.get("minimum", 0) + draw.randrange(20, 2000)
    if draw.random() < 0.2:
        schema["multipleOf"] = draw.choice([2, 5, 7])
    return schema


def _listed(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"enum": draw.sample(["red", "grün", 1, -2.5, None, True, 'a"b\\c', "🙂", {"k": [1]}, [], ""], 4)}


def _constant(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"const": draw.choice(["fixed", 0, 3.25, False, {"a": {"b": None}}, "tab\there", [1, "x"]])}


def _plain(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"type": draw.choice(["boolean", "null"])}


def _object(draw: random.Random, depth: int) -> dict[str, Any]:
    names = draw.sample(WORDS, draw.randrange(1, 5))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _any_schema(draw, depth + 1) for name in names},
        "required": draw.sample(names, draw.randrange(len(names) + 1)),
    }
    kind = draw.random()
    if kind < 0.4:
        schema["additionalProperties"] = False
    elif kind < 0.5:  # names that are free have no longest one
        schema["patternProperties"] = {"^[u-z]{1,3}$": _any_schema(draw, depth + 1)}
        schema["additionalProperties"] = False
        schema["required"] = names
        schema["maxProperties"] = len(names) + 1
    return schema


def _list(draw: random.Random, depth: int) -> dict[str, Any]:
    shortest = draw.randrange(3)
    return {
        "type": "array",
        "items": _any_schema(draw, depth + 1),
        "minItems": shortest,
        "maxItems": shortest + draw.randrange(3),
    }


def _tuple(draw: random.Random, depth: int) -> dict[str, Any]:
    items = [_any_schema(draw, depth + 1) for _ in range(draw.randrange(1, 4))]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": draw.randrange(len(items) + 1)}


def _one_of_types(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"type": draw.sample(["integer", "boolean", "null"], 2)}


def _either(draw: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_any_schema(draw, depth + 1) for _ in range(draw.randrange(1, 4))]}


def _all(draw: random.Random, depth: int) -> dict[str, Any]:
    low = draw.randrange(-20, 20)
    return draw.choice(
        [
            {
                "allOf": [
                    {"type": "number", "exclusiveMinimum": low},
                    {"maximum": low + draw.choice([0.5, 3])},
                ]
            },
            {"allOf": [{"type": "integer"}, {"minimum": low, "exclusiveMaximum": low + 9}]},
            {"allOf": [{"type": "string", "maxLength": 6}, {"type": "string", "minLength": 2}]},
            {"type": "string", "maxLength": 4, "anyOf": [{"minLength": 1}, {"maxLength": 2}]},
            {"allOf": [{"type": "array", "items": {"type": "boolean"}, "maxItems": 3}, {"minItems": 1}]},
        ]
    )
