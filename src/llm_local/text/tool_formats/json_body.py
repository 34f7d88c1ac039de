"""Calls as JSON: `{"name": ..., "arguments": {...}}`, lists of these, and `name{...}` of some formats.

Read one character at a time, so that time is linear in the text and nothing depends on how it comes in pieces.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.format import (
    MAX_DEPTH,
    ArgumentsPart,
    Body,
    BodyState,
    CallMade,
    CallNamed,
    Part,
)

__all__ = ["json_body", "load_json"]

NAME_KEYS: Final = ("name", "tool_name")
ARGUMENT_KEYS: Final = ("arguments", "parameters")
KNOWN_KEYS: Final = frozenset({*NAME_KEYS, *ARGUMENT_KEYS, "id", "tool_call_id", "type", "function"})
MAX_HEAD: Final = 256

_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_SPACE: Final = " \t\r\n"
_CLOSING: Final = {"{": "}", "[": "]"}


def json_body(
    *, head: str = r"\s*", lists: bool = True, broken_by: str = ""
) -> Callable[[Sequence[ToolDefinition]], Body]:
    """Makes bodies for a format. `head` matches what may stand before the JSON as a whole.

    A group `name` in it says that the JSON is the arguments alone. `lists` allows a list of calls. `broken_by` stands
    in no string, so that one which is never closed does not take the calls behind it with it.
    """
    pattern = re.compile(head)
    return lambda tools: _JsonBody({tool.name for tool in tools}, pattern, lists=lists, broken_by=broken_by)


class _JsonBody:
    """Satisfies `Body`. A call to a tool that is not among `names` is none."""

    def __init__(self, names: Collection[str], head: re.Pattern[str], *, lists: bool, broken_by: str) -> None:
        self.state: BodyState = "open"
        self._names = names
        self._head_pattern = head
        self._broken_by = broken_by
        self._named = "name" in head.groupindex
        self._openers = "{[" if lists and not self._named else "{"
        self._head: list[str] = []
        self._begun = False
        self._call: _CallReader | None = None
        self._in_list = False
        self._num_calls = 0

    def feed(self, text: str) -> tuple[int, list[Part]]:
        for taken, character in enumerate(text):
            call = self._call
            fits = self._take(character)
            if not fits:
                self.state = "failed"
                return taken, [] if call is None else call.parts()
            if call is not None and self._call is None:
                return taken + 1, call.parts()
            if self.state == "done":
                return taken + 1, []
        return len(text), [] if self._call is None else self._call.parts()

    def finish(self) -> list[Part]:
        self.state = "failed"  # JSON that is not complete is no call
        return []

    def _take(self, character: str) -> bool:
        """Read one character; False when it does not belong to the body."""
        if self._call is not None:
            return self._take_inside(self._call, character)
        if self._begun:
            return self._take_between(character)
        if character in self._openers:
            return self._begin(character)
        self._head.append(character)
        return len(self._head) <= MAX_HEAD and (self._named or character in _SPACE)

    def _begin(self, character: str) -> bool:
        found = self._head_pattern.fullmatch("".join(self._head))
        name = found["name"] if found and self._named else None
        if not found or (self._named and name not in self._names):
            return False
        self._begun = True
        self._in_list = character == "["
        if not self._in_list:
            self._call = _CallReader(self._names, name, self._broken_by)
        return True

    def _take_inside(self, call: _CallReader, character: str) -> bool:
        if not call.take(character):
            return False
        if call.complete:
            self._call = None
            self._num_calls += 1
            if not self._in_list:
                self.state = "done"
        return True

    def _take_between(self, character: str) -> bool:
        """In a list, outside of its calls."""
        if character == "{":
            self._call = _CallReader(self._names, None, self._broken_by)
        elif character == "]" and self._num_calls:
            self.state = "done"
        else:
            return character in _SPACE or character == ","
        return True


class _CallReader:
    """One call's object, from behind its opening brace. Says name and arguments as soon as they are known.

    Control characters inside strings, which JSON forbids and models write, are taken.
    """

    def __init__(self, names: Collection[str], name: str | None, broken_by: str) -> None:
        """`name` is known beforehand where the object is the arguments alone."""
        self.complete = False
        self._names = names
        self._name = name
        self._broken_by = broken_by
        self._arguments_alone = name is not None
        self._open = ["}"]  # closing brackets to come
        self._in_string = False
        self._escaped = False
        self._text = ["{"]
        self._string_start = 0
        self._key: str | None = None  # of the member being read, at the call's own level
        self._expects_value = False
        self._parts: list[Part] = []
        self._streams = self._arguments_alone  # the arguments are being passed on
        self._delta = ["{"] if self._streams else []
        if name is not None:
            self._parts.append(CallNamed(name))

    def take(self, character: str) -> bool:
        """Read one character; False when this is no call."""
        outside = not self._in_string
        if not (self._take_outside(character) if outside else self._take_in_string(character)):
            return False
        self._text.append(character)
        if self._streams:
            self._delta.append(character if outside else _escape(character))
        if not self._open:
            return self._finish()
        if len(self._open) == 1 and not self._arguments_alone:
            if not outside and not self._in_string:
                return self._end_string()
            if outside and character in "}]":
                self._streams = False
        return True

    def parts(self) -> list[Part]:
        """What became known since the last time."""
        parts, self._parts = self._parts, []
        if self._delta:
            # before the call itself, which comes last
            place = len(parts) - (self.complete and isinstance(parts[-1], CallMade)) if parts else 0
            parts.insert(place, ArgumentsPart("".join(self._delta)))
            self._delta = []
        return parts

    def _take_in_string(self, character: str) -> bool:
        if self._broken_by.endswith(character) and self._broken_by:
            recent = self._text[max(self._string_start, len(self._text) - len(self._broken_by) + 1) :]
            if "".join(recent) + character == self._broken_by:
                return False
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
        return True

    def _take_outside(self, character: str) -> bool:
        own_level = len(self._open) == 1 and not self._arguments_alone
        if character == '"':
            self._in_string = True
            self._string_start = len(self._text)
        elif character in "{[":
            self._open.append(_CLOSING[character])
            if own_level and character == "{" and self._expects_value and self._key in ARGUMENT_KEYS:
                self._streams = self._name is not None
            return len(self._open) <= MAX_DEPTH
        elif character in "}]":
            return self._open.pop() == character
        elif own_level and character == ":":
            self._expects_value = True
        elif own_level and character == ",":
            self._key, self._expects_value = None, False
        return True

    def _end_string(self) -> bool:
        """A string at the call's own level: the name of a member, or the tool's."""
        value = load_json("".join(self._text[self._string_start :]))
        if not isinstance(value, str):
            return False
        if not self._expects_value:
            self._key = value
            return value in KNOWN_KEYS
        if self._key in NAME_KEYS:
            if value not in self._names or self._name is not None:
                return False
            self._name = value
            self._parts.append(CallNamed(value))
        return True

    def _finish(self) -> bool:
        value = load_json("".join(self._text))
        found = (self._name, value) if self._arguments_alone else _unwrap(value)
        if found is None or not isinstance(found[1], dict):
            return False
        name, arguments = found
        if name is None or name not in self._names:
            return False
        if self._name is None:
            self._parts.append(CallNamed(name))
        self._parts.append(CallMade(name, arguments))
        self.complete = True
        return True


def load_json(text: str) -> Any:
    """The value of a JSON text; None when it is none, has a name twice, or what no other program could read.

    That is NaN, numbers that are too long or too large, and halves of a surrogate pair.
    """

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(members)
        if len(names) != len(members):
            raise ValueError("a name comes twice")
        return names

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(digits)
        return value

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        value = json.loads(
            text, strict=False, object_pairs_hook=pairs, parse_float=number, parse_constant=refuse
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value


def _unwrap(value: Any) -> tuple[str, Any] | None:
    """Name and arguments of a call object, in any of its spellings."""
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        value = value["function"]
    if not isinstance(value, Mapping):
        return None
    names = [value[key] for key in NAME_KEYS if key in value]
    if not names and isinstance(value.get("function"), str):
        names = [value["function"]]
    given = [value[key] for key in ARGUMENT_KEYS if key in value]
    if len(names) != 1 or not isinstance(names[0], str) or len(given) > 1:
        return None
    arguments = given[0] if given else {}
    return names[0], load_json(arguments) if isinstance(arguments, str) else arguments


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1] if character < " " else character
