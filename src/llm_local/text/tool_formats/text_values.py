"""Arguments written as plain text between two strings: what they mean, and the grammar of those that a schema allows.

The tool's schema says which are numbers and the like; all that may be a string is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.json_body import load_json
from llm_local.text.tool_formats.rules import Rules
from llm_local.text.tool_formats.schemas import (
    Member,
    as_type,
    listed_values,
    members_of,
    number_of,
    refuse,
    resolved,
    speaking,
    spelled,
    text_of,
    type_of,
)

__all__ = ["TextArguments", "schema_of", "typed_value"]

# Names that stand in a tag, or on a line of their own.
_NAMES: Final = re.compile(r"[^\s<>](?:[^<>\r\n]*[^\s<>])?")
_MAX_DEPTH: Final = 32


def schema_of(name: str, tools: Sequence[ToolDefinition]) -> Mapping[str, Any]:
    """The schema of the arguments of the tool called `name`."""
    return next((tool.parameters for tool in tools if tool.name == name), {})


def typed_value(text: str, key: str, root: Mapping[str, Any]) -> Any:
    """A value written as plain text, as the schema of the arguments means it: the text itself where that is allowed."""
    properties = root.get("properties")
    schema = resolved(properties.get(key), root) if isinstance(properties, Mapping) else None
    return _typed(text, schema, root)


def _typed(text: str, schema: Any, root: Mapping[str, Any]) -> Any:
    listed = listed_values(schema) or []
    if text in listed:
        return text
    value = load_json(text.strip())
    for one in listed:
        if one == value and type_of(one) == type_of(value):
            return one
    kinds = _kinds(schema, root)
    if "string" in kinds and not (text == "null" and "null" in kinds):
        return text
    if value is None and text.strip() != "null":
        return {"True": True, "False": False, "None": None}.get(text.strip(), text)
    # where nothing is said of a type, only what can be nothing else is not text
    return value if kinds or not isinstance(value, str) else text


def _kinds(schema: Any, root: Mapping[str, Any], depth: int = 0) -> set[str]:
    """The JSON types that a schema speaks of; none where it speaks of none, or some part of it may be anything."""
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return set()
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        return {kind for kind in kinds if isinstance(kind, str)} if isinstance(kinds, list | tuple) else set()
    listed = listed_values(schema)
    if listed is not None:
        return set(map(type_of, listed))
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            parts = [_kinds(one, root, depth + 1) for one in schema[keyword]]
            return set().union(*parts) if all(parts) else set()
    return set()


@dataclass(frozen=True, slots=True)
class TextArguments:
    """Writes each argument as `before` NAME `between` VALUE `closes` and `after`; no value holds one of `never`.

    Satisfies `format.ArgumentsGrammar`.
    """

    before: str
    between: str
    closes: str
    never: tuple[str, ...]
    after: str = ""

    def __call__(self, tool: ToolDefinition, rules: Rules) -> str:
        """The arguments one after the other, those that are not required or not.

        Raises:
            InvalidRequest: what a schema says cannot be kept in plain text.
        """
        root = {**tool.parameters, "type": "object"}
        return " ".join(self._argument(one, root, rules) for one in members_of(root, f"{tool.name}#", _NAMES))

    def _argument(self, member: Member, root: Mapping[str, Any], rules: Rules) -> str:
        head = rules.literal(f"{self.before}{member.name}{self.between}")
        value = self._value(member, root, rules)
        whole = rules.rule(f"{head} {value} {rules.literal(self.after)}".rstrip())
        return whole if member.required else f"{whole}?"

    def _value(self, member: Member, root: Mapping[str, Any], rules: Rules) -> str:
        schema = resolved(member.schema, root)
        if isinstance(schema, bool) or not isinstance(schema, Mapping):
            schema = {} if schema is not False else {"not": {}}
        kinds = _kinds(schema, root)
        if not kinds:
            return rules.closed(text_of(schema, member.place, self.never), self.closes)
        if "string" in kinds or listed_values(schema) is not None:
            return rules.closed(self._texts(schema, kinds, member.place, root), self.closes)
        if speaking(schema) == {"type"} and kinds <= {"integer", "number"}:
            number = number_of("number" in kinds)  # JSON has no longest one
            return f"{rules.terminal(number)} {rules.literal(self.closes)}"
        shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
        return f"{rules.json({**schema, **shared})} {rules.literal(self.closes)}"

    def _texts(self, schema: Mapping[str, Any], kinds: set[str], place: str, root: Mapping[str, Any]) -> str:
        """Any of the texts, or null where it may be; whatever else it may be would be read as a text."""
        found = ['"null"'] if "null" in kinds else []
        for part in self._parts(schema, place, root):
            listed = listed_values(part)
            if listed is not None:
                found += [json.dumps(text, ensure_ascii=False) for text in self._meant(listed, schema, root)]
            elif "string" in _kinds(part, root):
                text = text_of(as_type(part, "string"), place, self.never)
                found.append(f"({text} & ~/null/)" if "null" in kinds else f"({text})")
        if not found:
            raise refuse("The list of values, none of which can be written,", place)
        return " | ".join(found)

    def _parts(self, schema: Any, place: str, root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """What a schema is any of; itself where it is no such list."""
        schema = resolved(schema, root)
        if not isinstance(schema, Mapping) or "anyOf" not in schema or "type" in schema:
            yield schema
            return
        for keyword in sorted(speaking(schema) - {"anyOf"}):
            raise refuse(f"{keyword!r}", place)
        for one in schema["anyOf"]:
            yield from self._parts(one, place, root)

    def _meant(
        self, listed: Sequence[Any], schema: Mapping[str, Any], root: Mapping[str, Any]
    ) -> Iterator[str]:
        """The texts of those values that are read as themselves."""
        for value in listed:
            text = value if isinstance(value, str) else spelled(value)
            meant = _typed(text, schema, root)
            if meant == value and type_of(meant) == type_of(value):
                if not any(mark in text for mark in self.never):
                    yield text
