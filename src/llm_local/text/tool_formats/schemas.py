"""What the schemas of a tool's arguments say, for formats whose arguments are no JSON; what they cannot say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from llm_local.errors import InvalidRequest
from llm_local.text.tool_formats.rules import MAX_REPEATS, regex_of

__all__ = [
    "Member",
    "as_type",
    "count_of",
    "listed_values",
    "members_of",
    "number_of",
    "refuse",
    "resolved",
    "speaking",
    "spelled",
    "text_of",
    "type_of",
]

_SILENT: Final = frozenset(
    """$schema $id $comment $defs definitions title description default example examples deprecated readOnly
    writeOnly contentMediaType contentEncoding""".split()
)
_OF_OBJECTS: Final = frozenset(
    "type properties required additionalProperties minProperties maxProperties".split()
)
_OF_TEXTS: Final = frozenset("type minLength maxLength pattern".split())
_CHARACTER: Final = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"  # no control character but those of layout
_INTEGER: Final = r"-?(0|[1-9][0-9]{0,14})"
_FRACTION: Final = r"(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?"
_MAX_REFERENCES: Final = 64
# Of which type a keyword speaks; of all others it says nothing.
_TYPES: Final = {
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), ("string",)),
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), ("integer", "number")
    ),
    **dict.fromkeys(
        ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains"),
        ("array",),
    ),
    **dict.fromkeys(
        (
            "properties",
            "patternProperties",
            "required",
            "additionalProperties",
            "minProperties",
            "maxProperties",
        ),
        ("object",),
    ),
}


@dataclass(frozen=True, slots=True)
class Member:
    """One property of an object, and where its schema stands."""

    name: str
    schema: Any
    required: bool
    place: str


def refuse(what: str, place: str) -> InvalidRequest:
    """The error for a part of a schema that a format cannot force, ready to raise."""
    return InvalidRequest(
        f"{what} at {place} cannot be kept in this model's way to call tools.", param="tools"
    )


def resolved(schema: Any, root: Mapping[str, Any]) -> Any:
    """`schema`, or what its `$ref` points to inside of `root`; itself where that is nothing."""
    for _ in range(_MAX_REFERENCES):
        if speaking(schema) != {"$ref"}:
            break
        found = _pointed(root, str(schema["$ref"]))
        if found is None:
            break
        schema = found
    return schema


def speaking(schema: Any) -> set[str]:
    """The keywords that say something about a value."""
    names = schema.keys() if isinstance(schema, Mapping) else ()
    return {name for name in names if name not in _SILENT and not name.startswith("x-")}


def as_type(schema: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What a schema says of values of one type."""
    kept = {name: value for name, value in schema.items() if kind in _TYPES.get(name, (kind,))}
    return {**kept, "type": kind}


def listed_values(schema: Any) -> list[Any] | None:
    """The only values that there are, where a schema lists them."""
    if isinstance(schema, Mapping) and "const" in schema:
        return [schema["const"]]
    values = schema.get("enum") if isinstance(schema, Mapping) else None
    return values if isinstance(values, list) else None


def type_of(value: Any) -> str:
    """The JSON type of a value."""
    names = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        type(None): "null",
        list: "array",
    }
    return names.get(type(value), "object")


def spelled(value: Any) -> str:
    """A value as JSON, in the one spelling that masks have."""
    return json.dumps(value, ensure_ascii=False)


def count_of(schema: Mapping[str, Any], keyword: str, place: str, default: int) -> int:
    """A keyword that counts.

    Raises:
        InvalidRequest: it is no count.
    """
    value = schema.get(keyword, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise refuse(f"{keyword!r} {value!r}", place)
    return value


def members_of(schema: Mapping[str, Any], place: str, names: re.Pattern[str]) -> list[Member]:
    """The properties of an object, in their order. Others than these are never written.

    Raises:
        InvalidRequest: the schema says more, or one of them has a name that is not of `names`.
    """
    properties, required = schema.get("properties", {}), schema.get("required", [])
    for keyword in sorted(speaking(schema) - _OF_OBJECTS):
        raise refuse(f"{keyword!r}", place)
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        raise refuse("A schema that is none", place)
    for name in (*required, *properties):
        if name not in properties:
            raise refuse(f"The required property {name!r}, of which 'properties' says nothing,", place)
        if not names.fullmatch(name):
            raise refuse(f"A property called {name!r}", place)
    if count_of(schema, "minProperties", place, 0) > len(required):
        raise refuse("'minProperties'", place)
    if count_of(schema, "maxProperties", place, len(properties)) < len(properties):
        raise refuse("'maxProperties'", place)
    return [
        Member(name, one, name in required, f"{place}/properties/{name}") for name, one in properties.items()
    ]


def number_of(fraction: bool) -> str:
    """A terminal expression for numbers of a length that float64 can tell apart, with a fraction or whole."""
    return f"/{_INTEGER}{_FRACTION if fraction else ''}/"


def text_of(schema: Mapping[str, Any], place: str, without: tuple[str, ...]) -> str:
    """A terminal expression for the texts that a schema of strings allows, and that hold none of `without`.

    Raises:
        InvalidRequest: the schema says what no regex is made of here.
    """
    for keyword in sorted(speaking(schema) - _OF_TEXTS):
        raise refuse(f"{keyword!r}", place)
    shortest = count_of(schema, "minLength", place, 0)
    if shortest > MAX_REPEATS:
        raise refuse(f"'minLength' {shortest}", place)
    # narrowed to what can be counted
    longest = min(count_of(schema, "maxLength", place, 0), MAX_REPEATS) if "maxLength" in schema else ""
    parts = [
        f"/{_CHARACTER}{{{shortest},{longest}}}/",
        f"~/(?s:.*)({'|'.join(map(regex_of, without))})(?s:.*)/",
    ]
    if "pattern" in schema:
        parts.append(f"/{_searched(str(schema['pattern']), place)}/")
    return " & ".join(parts)


def _searched(pattern: str, place: str) -> str:
    """A pattern that is found anywhere as one that is matched as a whole."""
    if _has_open_choice(pattern):
        raise refuse("A 'pattern' with | outside of parentheses", place)
    if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        raise refuse("A 'pattern' that ends in a backslash", place)
    pattern = pattern.replace("\n", r"\n")
    slashes = re.sub(r"\\.|/", lambda found: found[0] if len(found[0]) > 1 else r"\/", pattern)
    before = "" if slashes.startswith("^") else "(?s:.*)"
    ends = slashes.endswith("$") and not re.search(r"(?<!\\)(?:\\\\)*\\\$$", slashes)
    return before + slashes.removeprefix("^")[: -1 if ends else None] + ("" if ends else "(?s:.*)")


def _has_open_choice(pattern: str) -> bool:
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern)
    depth = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            return True
    return False


def _pointed(root: Mapping[str, Any], reference: str) -> Any:
    """What a JSON pointer into `root` finds; None for nothing."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    for step in filter(None, unquote(reference[1:]).split("/")):
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
