"""JSON schemas to grammars: what cannot be enforced is refused by name, and what has no end is given one.

A mask may be narrower than the schema: every reply still satisfies it. So white space is bounded, an object that
lists its `properties` and says nothing of others has no others, and characters in strings are escaped in one way only
(the library compares the spelling of names, and `"a"` and `"\\u0061"` are one name).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeGuard
from urllib.parse import unquote

from llguidance import LLMatcher

from llm_local.constraints.refusals import MAX_REPEAT, check_regex, first_line, refusal

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

__all__ = ["COMPILE_OPTIONS", "any_object_grammar", "checked_schema", "guilty_place", "schema_grammar"]

MAX_DEPTH: Final = 64
MAX_SCHEMAS: Final = 5_000
MAX_TRIED: Final = 100
_TINY: Final = 2.0**-20
MAX_EXACT: Final = 2**53  # the library computes with float64

# https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md#whitespace-handling
COMPILE_OPTIONS: Final[JsonCompileOptions] = {
    "whitespace_flexible": True,
    "whitespace_pattern": r" |\n {0,16}",  # at each place at most once
    "json_allowed_escapes": 'nrbtf\\"',
    "json_allow_general_unicode_escapes": False,
    "coerce_one_of": False,
    "lenient": False,
}

_ANNOTATIONS: Final = frozenset(
    """$schema $comment title description default example examples deprecated readOnly writeOnly
    contentMediaType contentEncoding discriminator""".split()
)
_AT_ROOT: Final = frozenset({"$id", "id"})
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_ONE: Final = frozenset({"items", "additionalItems", "additionalProperties"})
_COUNTS: Final = frozenset("minItems maxItems minLength maxLength minProperties maxProperties".split())
_NUMBERS: Final = frozenset("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split())
_OTHERS: Final = frozenset("$ref type const enum required pattern format".split())
_APPLICATORS: Final = frozenset({"anyOf", "oneOf", "$ref"})
_KNOWN: Final = _ANNOTATIONS | _NAMED | _LISTS | _ONE | _COUNTS | _NUMBERS | _OTHERS
# What says nothing about a value when it stands beside an applicator.
_SILENT: Final = _ANNOTATIONS | {"$defs", "definitions"} | _AT_ROOT


def schema_grammar(schema: Mapping[str, Any]) -> str:
    """The library's grammar of a schema.

    Raises:
        InvalidRequest: a part of the schema that cannot be enforced; the message names it and where it stands.
    """
    checked = checked_schema(schema)
    return LLMatcher.grammar_from_json_schema(json.dumps(checked), overrides=COMPILE_OPTIONS)


def any_object_grammar() -> str:
    """The library's grammar of any JSON object."""
    return schema_grammar({"type": "object"})


def checked_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `schema` that can be enforced as a whole; see `schema_grammar` for what is refused."""
    root = {name: value for name, value in json.loads(json.dumps(schema)).items() if name not in _AT_ROOT}
    found = dict(_walk(root))
    for place, one in found.items():
        _check_reference(place, one, found)
    # in a schema made of parts, one part's properties are another part's others, and its bounds another's
    parts = any(_has_parts(one) for one in found.values())
    for one in found.values():
        _exclude(one, alone=not parts)
        if not parts:
            _close(one)
    for place, one in found.items():
        _check_repeated_names(place, one)
    return root


def guilty_place(schema: Mapping[str, Any], reason: str) -> str:
    """The JSON pointer of the innermost part that is refused for the library's `reason` by itself; empty for none."""
    parts = sorted(_walk(dict(schema)), key=lambda part: -part[0].count("/"))
    defined = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    for place, part in parts[:MAX_TRIED]:
        alone = LLMatcher.grammar_from_json_schema(json.dumps({**part, **defined}), overrides=COMPILE_OPTIONS)
        reasons = LLMatcher.validate_grammar_with_warnings(alone)[1]
        if first_line(reason) in map(first_line, reasons):
            return place
    return ""


def _walk(schema: Any, place: str = "#", depth: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside `schema` with its JSON pointer, each checked by itself. True and false have none."""
    todo = [(schema, place, depth)]
    seen = 0
    while todo:
        one, place, depth = todo.pop()
        if isinstance(one, bool):
            continue
        if not isinstance(one, dict):
            raise refusal(f"The JSON schema at {place} must be an object, true or false.")
        seen += 1
        if depth > MAX_DEPTH:
            raise refusal(f"The JSON schema is nested over {MAX_DEPTH} levels deep.")
        if seen > MAX_SCHEMAS:
            raise refusal(f"The JSON schema has over {MAX_SCHEMAS} parts.")
        for keyword, value in one.items():
            _check_keyword(place, keyword, value)
        yield place, one
        todo += [(value, f"{place}/{step}", depth + 1) for step, value in _inside(place, one)]


def _inside(place: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas directly inside one, with the rest of their pointers."""
    for keyword, value in schema.items():
        if keyword in _NAMED:
            if not isinstance(value, dict):
                raise refusal(f"{keyword!r} at {place} must be an object.")
            for name, one in value.items():
                yield f"{keyword}/{name.replace('~', '~0').replace('/', '~1')}", one
        elif keyword in _LISTS or (keyword == "items" and isinstance(value, list)):
            if not isinstance(value, list):
                raise refusal(f"{keyword!r} at {place} must be a list.")
            yield from ((f"{keyword}/{number}", one) for number, one in enumerate(value))
        elif keyword in _ONE:
            yield keyword, value


def _check_keyword(place: str, keyword: str, value: Any) -> None:
    if keyword not in _KNOWN and (not keyword.startswith("x-") or keyword == "x-guidance"):
        raise refusal(
            f"The JSON schema uses {keyword!r} at {place}, which cannot be enforced.",
            "Remove it, and check it in the reply where it matters.",
        )
    if (
        keyword in _COUNTS
        and isinstance(value, int | float)
        and keyword.startswith("min")
        and value > MAX_REPEAT
    ):
        raise refusal(f"{keyword!r} at {place} is {value}, at most {MAX_REPEAT} are allowed.")
    if keyword in _NUMBERS and not _exact(value):
        raise refusal(f"{keyword!r} at {place} is {value}, which has no exact float64.")
    if keyword in ("const", "enum") and not _exact(value):
        raise refusal(f"{keyword!r} at {place} has an integer without an exact float64.")
    if keyword == "pattern":
        check_regex(str(value), f"The pattern at {place}")
    if keyword == "patternProperties" and isinstance(value, dict):
        for pattern in value:
            check_regex(pattern, f"A pattern at {place}")


def _exact(value: Any) -> bool:
    """False where `value` holds an integer that the library would round."""
    if isinstance(value, Mapping):
        return all(_exact(one) for one in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(_exact(one) for one in value)
    return not isinstance(value, int) or abs(value) <= MAX_EXACT


def _check_reference(place: str, schema: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    reference = schema.get("$ref")
    if isinstance(reference, str) and unquote(reference).rstrip("/") not in found:
        raise refusal(
            f"'$ref' at {place} points to {reference[:100]!r}, which is no schema inside this one.",
            "Only references that begin with # are followed; nothing is fetched.",
        )


def _has_parts(schema: Mapping[str, Any]) -> bool:
    """True where several parts of a schema say something about one value."""
    speaking = schema.keys() - _SILENT
    return "allOf" in speaking or (len(speaking) > 1 and bool(speaking & _APPLICATORS))


def _close(schema: dict[str, Any]) -> None:
    """No others beside the listed properties, where the schema does not say and needs none."""
    names = schema.get("properties")
    if not names or "additionalProperties" in schema or "patternProperties" in schema:
        return
    required, fewest = schema.get("required", []), schema.get("minProperties", 0)
    if (
        isinstance(required, list)
        and set(map(str, required)) <= names.keys()
        and fewest in range(len(names) + 1)
    ):
        schema["additionalProperties"] = False


def _exclude(schema: dict[str, Any], *, alone: bool) -> None:
    """Narrow what the library takes for inclusive: an excluded integer whose interval reaches no other integer."""
    for excluded, included, other, sign in (
        ("exclusiveMinimum", "minimum", ("maximum", "exclusiveMaximum"), 1),
        ("exclusiveMaximum", "maximum", ("minimum", "exclusiveMinimum"), -1),
    ):
        bound = schema.get(excluded)
        if not _is_number(bound) or not float(bound).is_integer():
            continue
        far = [schema[name] for name in other if _is_number(schema.get(name))]
        if alone and not any(abs(one - bound) < 1 for one in far):
            continue
        inside = bound + sign * _TINY * max(1, abs(bound))
        given = schema.get(included)
        nearest = max if sign > 0 else min
        schema[included] = nearest(inside, given) if _is_number(given) else inside
        del schema[excluded]


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_repeated_names(place: str, schema: Mapping[str, Any]) -> None:
    """A free name may come twice, and then counts once: more than one free name cannot be asked for."""
    fewest = schema.get("minProperties", 0)
    free = schema.get("additionalProperties", True) is not False or bool(schema.get("patternProperties"))
    required = schema.get("required", [])
    num_required = len(required) if isinstance(required, list) else 0  # the library refuses what is no list
    if free and isinstance(fewest, int) and fewest - num_required > 1:
        raise refusal(
            f"'minProperties' at {place} is {fewest}, but names that are not listed could repeat.",
            "List the names in properties and required.",
        )
