"""The lines of a batch: JSON objects to requests, every mistake by its name."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NoReturn

from llm_local.errors import InvalidRequest
from llm_local.messages import Message, ToolCall
from llm_local.options import BOUNDS
from llm_local.terminal.piped_input import MAX_INPUT_BYTES
from llm_local.terminal.sanitize import replace_surrogates

__all__ = [
    "OPTION_NAMES",
    "BatchLine",
    "BatchRequest",
    "digest",
    "read_fields",
    "read_request",
    "split_lines",
]

OPTION_NAMES: Final = (*(name for name in BOUNDS if name != "top_logprobs"), "stop", "logit_bias", "think")
"""The options a line may have beside its prompt.

Log-probabilities are not reported, so they are not taken; a constraint is compiled once, for the whole batch.
"""

_FIELDS: Final = ("prompt", "messages", "id", *OPTION_NAMES)
_MESSAGE_FIELDS: Final = ("role", "content", "name", "reasoning", "tool_calls", "tool_call_id")
_CALL_FIELDS: Final = ("id", "name", "arguments")
_ENDLESS: Final = 2**63


@dataclass(frozen=True)
class BatchLine:
    """A line that is not blank. `number` counts all lines of the input, from 1."""

    number: int
    data: bytes

    @cached_property
    def digest(self) -> str:
        """Tells an edited line from the one that was answered."""
        return digest(self.data)


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a line asks: a prompt or a conversation, with options of its own."""

    question: str | tuple[Message, ...]
    options: Mapping[str, Any]


def digest(data: bytes) -> str:
    """A short name of `data`: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def split_lines(data: bytes) -> list[BatchLine]:
    """The lines of a batch, without blank ones and without a byte order mark."""
    # not splitlines: JSON allows other line ends inside its strings
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    stripped = ((number, line.strip(b" \t\r")) for number, line in enumerate(lines, 1))
    return [BatchLine(number, line) for number, line in stripped if line]


def read_fields(data: bytes) -> dict[str, Any]:
    """The object a line holds.

    Raises:
        InvalidRequest: it is too long, not UTF-8, not JSON, no object, or names a field twice.
    """
    if len(data) > MAX_INPUT_BYTES:
        raise InvalidRequest(f"The line has {len(data)} bytes, but at most {MAX_INPUT_BYTES} are read.")
    try:
        fields = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The line is not UTF-8 at byte {error.start + 1}.") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"The line is not JSON at character {error.pos + 1}: {error.msg}.") from None
    except ValueError:
        raise InvalidRequest("The line has a number with too many digits.") from None
    except RecursionError:
        raise InvalidRequest("The line is nested too deeply.") from None
    if not isinstance(fields, dict):
        raise InvalidRequest("The line is no JSON object.", 'Write {"prompt": "..."}.')
    return fields


def read_request(fields: Mapping[str, Any], *, raw: bool) -> BatchRequest:
    """What the fields of a line ask. The bounds of options are left to GenerationOptions.

    Raises:
        InvalidRequest: `param` names the field that is unknown, missing, too much or of a wrong type.
    """
    _only(fields, _FIELDS, "")
    if isinstance(fields.get("id"), str):
        _text(fields["id"], "id")
    elif "id" in fields and not (_is_integer(fields["id"]) and abs(fields["id"]) < _ENDLESS):
        _refuse("id", fields["id"], "text or an integer")
    if ("prompt" in fields) == ("messages" in fields):
        raise InvalidRequest("Give either prompt or messages.", param="prompt")
    options = {name: _option(name, fields[name]) for name in OPTION_NAMES if name in fields}
    if "prompt" in fields:
        prompt = _text(fields["prompt"], "prompt")
        if not prompt.strip() and not raw:
            raise InvalidRequest("prompt is empty.", param="prompt")
        return BatchRequest(prompt, options)
    if raw:
        raise InvalidRequest("messages has no place with --raw.", "Give a prompt.", param="messages")
    messages = _list(fields["messages"], "messages")
    return BatchRequest(tuple(_message(one, f"messages[{n}]") for n, one in enumerate(messages)), options)


def _message(value: Any, place: str) -> Message:
    fields = _dict(value, place)
    _only(fields, _MESSAGE_FIELDS, f"{place}.")
    for name in ("role", "content"):
        if name not in fields:
            raise InvalidRequest(f"{place}.{name} is missing.", param=f"{place}.{name}")
    given = {name: fields[name] for name in fields if fields[name] is not None or name in ("role", "content")}
    calls = _list(given.pop("tool_calls", []), f"{place}.tool_calls")
    texts: dict[str, Any] = {name: _text(text, f"{place}.{name}") for name, text in given.items()}
    try:
        return Message(
            **texts,
            tool_calls=tuple(_tool_call(one, f"{place}.tool_calls[{n}]") for n, one in enumerate(calls)),
        )
    except InvalidRequest as error:
        if error.param == "role":
            raise InvalidRequest(error.message, error.hint, param=f"{place}.role") from None
        raise


def _tool_call(value: Any, place: str) -> ToolCall:
    fields = _dict(value, place)
    _only(fields, _CALL_FIELDS, f"{place}.")
    texts = [_text(fields.get(name), f"{place}.{name}") for name in ("id", "name")]
    arguments = _dict(fields.get("arguments"), f"{place}.arguments")
    _text(json.dumps(arguments, ensure_ascii=False), f"{place}.arguments")
    return ToolCall(texts[0], texts[1], arguments)


def _option(name: str, value: Any) -> Any:
    """The value in the form GenerationOptions takes."""
    if name == "stop":
        texts = [value] if isinstance(value, str) else _list(value, "stop")
        return tuple(_text(text, f"stop[{n}]") for n, text in enumerate(texts))
    if name == "logit_bias":
        return {_token_id(key): bias for key, bias in _dict(value, "logit_bias").items()}
    return value


def _token_id(key: str) -> int:
    # JSON has only text for keys
    if not (key.isascii() and key.isdigit() and len(key) < 10):
        raise InvalidRequest(f"logit_bias key {reprlib.repr(key)} is not a token id.", param="logit_bias")
    return int(key)


def _only(fields: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    for name in fields:
        if name not in known:
            shown = f"{place}{replace_surrogates(name)[:80]}"
            raise InvalidRequest(f"There is no field {shown}.", f"Known: {', '.join(known)}.", param=shown)


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        _refuse(place, value, "text")
    if replace_surrogates(value) != value:
        raise InvalidRequest(f"{place} has half of a surrogate pair, which is no character.", param=place)
    return value


def _list(value: Any, place: str) -> list[Any]:
    return value if isinstance(value, list) else _refuse(place, value, "a list")


def _dict(value: Any, place: str) -> dict[str, Any]:
    return value if isinstance(value, dict) else _refuse(place, value, "an object")


def _refuse(place: str, value: Any, wanted: str) -> NoReturn:
    shown = replace_surrogates(json.dumps(value, ensure_ascii=False))
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    raise InvalidRequest(f"{place} is {shown}, but must be {wanted}.", param=place)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        shown = replace_surrogates(twice)[:80]
        raise InvalidRequest(f"The line has {shown} twice.", param=shown)
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The line has {name}, which is no JSON.")
