"""JSON schemas as models read them best, and arguments checked against them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend, validator_for
from referencing import Registry

from llm_local.tools.patterns import pattern_checks

__all__ = ["argument_faults", "plain_schema"]

_NAMED: Final = ("properties", "$defs", "patternProperties")
_LITERAL: Final = ("default", "const", "enum", "examples", "required")
_PREFIX: Final = "#/$defs/"
# The order in which models have seen schemas written, by far the most often.
_ORDER: Final = ("type", "description", "properties", "items", "enum", "required")
MAX_FAULTS: Final = 5
MAX_FAULT_CHARS: Final = 300


def plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` in the usual order, without made-up titles, and with definitions put where they are used.

    Chat templates look at a parameter's `type`, which a reference hides. What refers to itself stays a reference.
    """
    definitions = schema.get("$defs", {})
    kept: dict[str, Any] = {}
    plain = _plain({key: value for key, value in schema.items() if key != "$defs"}, definitions, kept)
    return plain | ({"$defs": kept} if kept else {})


def argument_faults(arguments: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """What is wrong with a call's arguments, one sentence each, the first few; empty where nothing is.

    References are followed inside the schema only, never fetched.
    """
    try:
        validator = validator_for(schema, default=Draft202012Validator)
        validator.check_schema(schema, format_checker=FormatChecker(()))
        checking = extend(validator, pattern_checks(schema))(schema, registry=Registry())
        errors = sorted(checking.iter_errors(dict(arguments)), key=_place)
    except Exception as error:  # a schema is foreign, and there are many ways to be none
        return [f"the tool's own schema cannot be used ({type(error).__name__})"]
    return [_fault(error) for error in errors[:MAX_FAULTS]]


def _plain(value: Any, definitions: Mapping[str, Any], kept: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_plain(one, definitions, kept) for one in value]
    if not isinstance(value, Mapping):
        return value
    reference = str(value.get("$ref", ""))
    name = reference.removeprefix(_PREFIX)
    if reference.startswith(_PREFIX) and name in definitions:
        if not _refers(definitions[name], name, definitions):
            beside = {key: one for key, one in value.items() if key != "$ref"}
            return _plain({**definitions[name], **beside}, definitions, kept)
        if name not in kept:
            kept[name] = {}
            kept[name] = _plain(definitions[name], definitions, kept)
        return dict(value)
    result: dict[str, Any] = {}
    for key, one in value.items():
        if key in _LITERAL:
            result[key] = copy.deepcopy(one)
        elif key in _NAMED and isinstance(one, Mapping):
            result[key] = {inner: _plain(it, definitions, kept) for inner, it in one.items()}
        elif key != "title":
            result[key] = _plain(one, definitions, kept)
    # Python's sort is stable: all other keys stay in their order
    return dict(sorted(result.items(), key=lambda item: _rank(item[0])))


def _rank(key: str) -> int:
    return _ORDER.index(key) if key in _ORDER else len(_ORDER)


def _refers(schema: Any, name: str, definitions: Mapping[str, Any]) -> bool:
    """Does a definition lead back to itself?"""
    seen: set[str] = set()
    todo = [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one
        elif isinstance(one, Mapping):
            target = str(one.get("$ref", "")).removeprefix(_PREFIX)
            if target == name:
                return True
            if target in definitions and target not in seen:
                seen.add(target)
                todo.append(definitions[target])
            todo += one.values()
    return False


def _place(error: ValidationError) -> list[str]:
    return [str(step) for step in error.absolute_path]


def _fault(error: ValidationError) -> str:
    place = ".".join(_place(error))
    text = f"{place}: {error.message}" if place else error.message
    return text if len(text) <= MAX_FAULT_CHARS else text[: MAX_FAULT_CHARS - 1] + "…"
