"""The grammar of Gemma's arguments: `{key:value,...}`, texts between a quote of its own, from a tool's schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.rules import MAX_REPEATS, Rules
from llm_local.text.tool_formats.schemas import (
    as_type,
    count_of,
    listed_values,
    members_of,
    number_of,
    refuse,
    resolved,
    speaking,
    spelled,
    text_of,
)

__all__ = ["QuotedArguments"]

_ANY: Final = re.compile(r"[\s\S]*")
_BARE: Final = re.compile(r"[^\s,:{}\[\]<>\"|]+")
_NUMERIC: Final = frozenset("type minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split())
_SCALARS: Final = ("string", "number", "boolean", "null")


@dataclass(frozen=True, slots=True)
class QuotedArguments:
    """Texts stand between two of `quote`, and hold neither it nor `ends`. Satisfies `format.ArgumentsGrammar`."""

    quote: str
    ends: str

    def __call__(self, tool: ToolDefinition, rules: Rules) -> str:
        """The object of all arguments.

        Raises:
            InvalidRequest: what a schema says cannot be kept in this notation.
        """
        root = {**tool.parameters, "type": "object"}
        return _Writer(self, root, rules).members(root, f"{tool.name}#")


class _Writer:
    """Writes the rules of one tool's schema, whose references are looked up in `root`."""

    def __init__(self, style: QuotedArguments, root: Mapping[str, Any], rules: Rules) -> None:
        self._style, self._root, self._rules = style, root, rules

    def members(self, schema: Mapping[str, Any], place: str) -> str:
        """An object: its properties in their order, with commas between those that come."""
        found = members_of(schema, place, _ANY)
        # from the last to the first: what may come first of all, and what may come behind another
        first = behind = ""
        for member in reversed(found):
            value = self._value(member.schema, member.place)
            one = f"{self._key(member.name, place)} {value}"
            this_first = f"{one} {behind}".rstrip()
            this_behind = f'"," {this_first}'
            if member.required:
                first, behind = self._rules.rule(this_first), self._rules.rule(this_behind)
            else:
                first = self._rules.rule(f"{this_first} | {first or chr(34) * 2}")
                behind = self._rules.rule(f"{this_behind} | {behind or chr(34) * 2}")
        return f'"{{" {first} "}}"'

    def _value(self, schema: Any, place: str) -> str:
        """A rule for any value; one that refers to itself is a rule that does."""
        name, new = self._rules.name(f"{id(self._root)} {spelled(schema)}")
        if new:
            self._rules.define(name, " | ".join(self._alternatives(resolved(schema, self._root), place)))
        return name

    def _alternatives(self, schema: Any, place: str) -> Sequence[str]:
        if schema is True or schema == {}:
            schema = {"type": list(_SCALARS)}
        if not isinstance(schema, Mapping):
            raise refuse("A value that nothing may be", place)
        listed = listed_values(schema)
        if listed is not None:
            return [self._listed(value, place) for value in listed]
        if isinstance(schema.get("anyOf"), list) and not speaking(schema) - {"anyOf"}:
            return [self._value(one, f"{place}/anyOf/{number}") for number, one in enumerate(schema["anyOf"])]
        kinds = schema.get("type")
        if "$ref" in schema or not isinstance(kinds, str | list):
            unknown = sorted(speaking(schema) - {"type"})
            raise refuse(f"{unknown[0]!r}" if unknown else "A value of no known type", place)
        return [self._typed(kind, schema, place) for kind in ([kinds] if isinstance(kinds, str) else kinds)]

    def _typed(self, kind: str, schema: Mapping[str, Any], place: str) -> str:
        only = as_type(schema, kind)
        match kind:
            case "object" if only.get("properties"):
                return self.members(only, place)
            case "array":
                return self._items(only, place)
            case "string":
                return self._quoted(text_of(only, place, (self._style.quote, self._style.ends)))
            case "integer" | "number":
                return self._number(only, place)
            case "boolean" | "null":
                for keyword in sorted(speaking(only) - {"type"}):
                    raise refuse(f"{keyword!r}", place)
                return '"null"' if kind == "null" else '("true" | "false")'
            case "object":
                raise refuse("An object whose properties are not listed", place)
        raise refuse(f"The type {kind!r}", place)

    def _number(self, schema: Mapping[str, Any], place: str) -> str:
        for keyword in sorted(speaking(schema) - _NUMERIC):
            raise refuse(f"{keyword!r}", place)
        if speaking(schema) == {"type"}:  # JSON has no longest number
            return self._rules.terminal(number_of(schema["type"] == "number"))
        return self._rules.json(schema)

    def _items(self, schema: Mapping[str, Any], place: str) -> str:
        for keyword in sorted(speaking(schema) - {"type", "items", "minItems", "maxItems"}):
            raise refuse(f"{keyword!r}", place)
        fewest, most = count_of(schema, "minItems", place, 0), None
        if "maxItems" in schema:
            most = min(count_of(schema, "maxItems", place, 0), MAX_REPEATS)
        if fewest > MAX_REPEATS or (most is not None and most < fewest):
            raise refuse("'minItems'", place)
        if most == 0:
            return '"[]"'
        value = self._value(schema.get("items", True), f"{place}/items")
        some = value
        if most != 1:
            some += f' ("," {value}){{{max(fewest, 1) - 1},{"" if most is None else most - 1}}}'
        return f'"[" {some} "]"' if fewest else f'("[" {some} "]" | "[]")'

    def _listed(self, value: Any, place: str) -> str:
        """One value as the notation spells it."""
        if isinstance(value, str):
            return self._rules.literal(self._between_quotes(value, place))
        if isinstance(value, Mapping):
            inside = ' "," '.join(
                f"{self._key(name, place)} {self._listed(one, place)}" for name, one in value.items()
            )
            return f'"{{" {inside} "}}"'
        if isinstance(value, list):
            inside = ' "," '.join(self._listed(one, place) for one in value)
            return f'"[" {inside} "]"'
        return self._rules.literal(spelled(value))

    def _key(self, name: str, place: str) -> str:
        return self._rules.literal(f"{name if _BARE.fullmatch(name) else self._between_quotes(name, place)}:")

    def _between_quotes(self, text: str, place: str) -> str:
        quote = self._style.quote
        if quote in text or self._style.ends in text:
            raise refuse(f"The text {text!r}", place)
        return f"{quote}{text}{quote}"

    def _quoted(self, content: str) -> str:
        quote = self._style.quote
        return f"{self._rules.literal(quote)} {self._rules.closed(content, quote)}"
