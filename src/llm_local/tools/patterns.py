"""The patterns of a JSON schema, matched in time that grows no faster than the text does.

The author of a tool writes the pattern and a model writes the text. Python's `re` tries some of such pairs for years,
and holds the whole interpreter meanwhile; the engine here never tries a way twice. What it does not read (look-around,
references back) and what is written in another dialect is left to the tool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, Final

from jsonschema import Draft202012Validator, ValidationError
from pydantic import ConfigDict, StringConstraints, TypeAdapter

__all__ = ["pattern_checks"]

_LINEAR: Final = ConfigDict(regex_engine="rust-regex")
_Check = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> TypeAdapter[str] | None:
    """None for a pattern that cannot be read."""
    try:
        return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)], config=_LINEAR)
    except Exception:  # pydantic's own, which it does not name; whatever it is, the pattern is not for us
        return None


def _found(pattern: str, text: str) -> bool | None:
    """Whether the text holds a match; None where that cannot be told."""
    compiled = _compiled(pattern)
    if compiled is None:
        return None
    try:
        compiled.validate_python(text.encode("utf-8", "replace").decode())  # lone surrogates have no UTF-8
    except ValueError:
        return False
    return True


def _any_found(patterns: Iterable[str], text: str) -> bool:
    """Whether a pattern may speak for this text: one that cannot be read may."""
    return any(_found(pattern, text) is not False for pattern in patterns)


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and _found(pattern, value) is False:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], value: Any, schema: Any
) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for pattern, inner in patterns.items():
            for key, one in value.items():
                if _found(pattern, key):
                    yield from validator.descend(one, inner, path=key, schema_path=pattern)


def _without_patterns(name: str) -> _Check:
    """The usual check of `name`, about the properties that no pattern speaks for."""
    usual = Draft202012Validator.VALIDATORS[name]

    def check(validator: Any, allowed: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        patterns = schema.get("patternProperties", {})
        if isinstance(value, dict) and patterns:
            value = {key: one for key, one in value.items() if not _any_found(patterns, key)}
            schema = {key: one for key, one in schema.items() if key != "patternProperties"}
        yield from usual(validator, allowed, value, schema)

    return check


def _unevaluated(validator: Any, allowed: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """Left to the tool where names have patterns: those of every schema around it would have to be matched."""
    yield from ()


# All that matches patterns, in every draft of the language, but for `unevaluatedProperties`.
_CHECKS: Final[Mapping[str, _Check]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _without_patterns("additionalProperties"),
}


def pattern_checks(schema: Any) -> Mapping[str, _Check]:
    """What takes the place of the usual checks of this schema."""
    return {**_CHECKS, "unevaluatedProperties": _unevaluated} if _has_pattern_names(schema) else _CHECKS


def _has_pattern_names(schema: Any) -> bool:
    todo = [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one
        elif isinstance(one, Mapping):
            if "patternProperties" in one:
                return True
            todo += one.values()
    return False
