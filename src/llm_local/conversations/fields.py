"""Messages and what is known of them as plain JSON objects and back, checked: the one shape of database and files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final, TypeVar, get_args

from llm_local.conversations.records import ReplyFacts
from llm_local.errors import InvalidRequest
from llm_local.events import FinishReason, Timings, Usage
from llm_local.messages import Message, ToolCall, check_text

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MAX_TITLE_CHARS",
    "checked_title",
    "facts_fields",
    "facts_from",
    "message_fields",
    "message_from",
    "optional_number",
    "optional_text",
]

MAX_MESSAGE_BYTES: Final = 64 << 20
MAX_TITLE_CHARS: Final = 200
_TEXTS: Final = ("name", "reasoning", "tool_call_id")
_MAX_INT: Final = 2**63 - 1

_Counts = TypeVar("_Counts", Usage, Timings)


def checked_title(title: str) -> str:
    """A title in one line.

    Raises:
        InvalidRequest: it has more than MAX_TITLE_CHARS characters, or is no Unicode.
    """
    check_text(title, "title")
    line = " ".join(title.split())
    if len(line) > MAX_TITLE_CHARS:
        raise InvalidRequest(
            f"A title of {len(line)} characters is too long.",
            f"Use at most {MAX_TITLE_CHARS}.",
            param="title",
        )
    return line


def message_fields(message: Message) -> dict[str, Any]:
    """A message as a JSON object; what it does not have is left out.

    Raises:
        InvalidRequest: it is larger than MAX_MESSAGE_BYTES, or a part of it has no place in JSON or in UTF-8.
    """
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    found |= {name: getattr(message, name) for name in _TEXTS if getattr(message, name) is not None}
    for name in _TEXTS:
        check_text(found.get(name, ""), name)
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": dict(call.arguments)}
            for call in message.tool_calls
        ]
    try:
        # The escapes of ASCII would make text six times as long, and what is measured is what is kept.
        size = len(json.dumps(found, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"A tool call cannot be kept: {error}.", param="tool_calls") from error
    if size > MAX_MESSAGE_BYTES:
        raise InvalidRequest(
            f"A message of {size / 1e6:.0f} MB is too large to be kept: at most {MAX_MESSAGE_BYTES >> 20} MB.",
            param="content",
        )
    return found


def message_from(found: object, where: str) -> Message:
    """The message that a JSON object stands for; `where` names it in errors.

    Raises:
        InvalidRequest: it is not the object of a message.
    """
    given = _object(found, where)
    calls = given.get("tool_calls") or []
    if not isinstance(calls, list):
        raise _wrong(f"{where}.tool_calls", "a list", calls)
    role = given.get("role")
    if not isinstance(role, str):
        raise _wrong(f"{where}.role", "text", role)
    content = given.get("content")
    if not isinstance(content, str):
        raise _wrong(f"{where}.content", "text", content)
    texts = {name: optional_text(given, name, where) for name in _TEXTS}
    try:
        return Message(
            role,  # type: ignore[arg-type]  # Message itself refuses what is no role
            content,
            tool_calls=tuple(_call(call, f"{where}.tool_calls[{at}]") for at, call in enumerate(calls)),
            **texts,
        )
    except InvalidRequest as error:
        if error.param and error.param.startswith(where):
            raise
        raise InvalidRequest(
            f"{where}: {error.message}", error.hint, param=f"{where}.{error.param}"
        ) from error


def facts_fields(facts: ReplyFacts) -> dict[str, Any]:
    """What is known of a reply as a JSON object; what is not known is left out."""
    return {name: value for name, value in asdict(facts).items() if value is not None}


def facts_from(found: object, where: str) -> ReplyFacts:
    """What is known of a reply, from a JSON object. Fields of a later version are passed over.

    Raises:
        InvalidRequest: it is not such an object.
    """
    given = _object(found, where)
    model = given.get("model")
    if not isinstance(model, str):
        raise _wrong(f"{where}.model", "text", model)
    reason = given.get("finish_reason")
    if reason is not None and reason not in get_args(FinishReason):
        raise _wrong(f"{where}.finish_reason", f"one of {', '.join(get_args(FinishReason))}", reason)
    seed = given.get("seed")
    if seed is not None and (type(seed) is not int or abs(seed) > 2**64):
        raise _wrong(f"{where}.seed", "a whole number", seed)
    return ReplyFacts(
        model=model,
        finish_reason=reason,
        usage=_counts(Usage, given.get("usage"), f"{where}.usage"),
        timings=_counts(Timings, given.get("timings"), f"{where}.timings"),
        seed=seed,
    )


def optional_text(given: Mapping[str, Any], name: str, where: str) -> str | None:
    """A field that is text, or is not there.

    Raises:
        InvalidRequest: it is something else, or no Unicode.
    """
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(f"{where}.{name}", "text", value)
    check_text(value, f"{where}.{name}")
    return value


def optional_number(given: Mapping[str, Any], name: str, where: str) -> float | None:
    """A field that is a finite number and not negative, or is not there.

    Raises:
        InvalidRequest: it is something else.
    """
    value = given.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= _MAX_INT or not math.isfinite(value):
        raise _wrong(f"{where}.{name}", "a number from 0 on", value)
    return float(value)


def _counts(kind: type[_Counts], found: object, where: str) -> _Counts | None:
    if found is None:
        return None
    given = _object(found, where)
    values: dict[str, Any] = {}
    for field in fields(kind):
        number = optional_number(given, field.name, where)
        if number is not None:
            values[field.name] = given[field.name] if kind is Usage else number
            if kind is Usage and type(given[field.name]) is not int:
                raise _wrong(f"{where}.{field.name}", "a whole number", given[field.name])
    return kind(**values)


def _call(found: object, where: str) -> ToolCall:
    given = _object(found, where)
    for name in ("id", "name"):
        if not isinstance(given.get(name), str):
            raise _wrong(f"{where}.{name}", "text", given.get(name))
    return ToolCall(given["id"], given["name"], _object(given.get("arguments"), f"{where}.arguments"))


def _object(found: object, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _wrong(where, "an object", found)
    return found


def _wrong(where: str, wanted: str, found: object) -> InvalidRequest:
    kinds = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "nothing",
    }
    said = kinds.get(type(found), type(found).__name__)
    if isinstance(found, str | int | float) and len(str(found)) <= 40:
        said = repr(found)
    return InvalidRequest(f"{where} must be {wanted}, and is {said}.", param=where)
