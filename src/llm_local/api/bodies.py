"""Reading a request's body: strict JSON with bounds, whatever the content type says, and models of what it may hold.

A body is read after the caller is known (`dependencies.admit`), never before. Nothing of it is echoed in an error but
the names of its fields.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema
from starlette.requests import ClientDisconnect

from llm_local.api.disconnect import ClientGone
from llm_local.errors import InvalidRequest

__all__ = [
    "IGNORED_HEADER",
    "MAX_BODY_BYTES",
    "BodyTooLarge",
    "DialectModel",
    "EmptyBody",
    "ignored_names",
    "json_body",
    "parse_json",
    "read_body",
    "read_json",
    "unknown_names",
    "validate",
]

MAX_BODY_BYTES: Final = 16 << 20
IGNORED_HEADER: Final = "x-llm-local-ignored"
"""The response header that names, with commas between, the fields that were accepted and have no effect."""

_MAX_DEPTH: Final = 64
_MAX_VALUES: Final = 2_000_000  # so many are looked at in a tenth of a second, in which nobody else is served
_MAX_INTEGER_DIGITS: Final = 40  # past every bound of ours, and far from where int() takes long
_MAX_IGNORED: Final = 32
_LARGE_BYTES: Final = 1 << 16  # from here on it is parsed in a thread, so that nobody else waits for it
_HALF_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_PYDANTICS_WORDS: Final = re.compile(r"^(Value error, |(Input|List|String|Dictionary) (?=should ))")
_HEADER_NAME: Final = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)

_Model = TypeVar("_Model", bound=BaseModel)


class BodyTooLarge(InvalidRequest):
    """The body has more bytes than a request of this kind may have."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"The request body has over {max_bytes} bytes.", "Send less at once.", kind="body_too_large"
        )


class EmptyBody(InvalidRequest):
    """There is no body."""

    def __init__(self) -> None:
        super().__init__("The request body is empty.", "Send a JSON object.", kind="invalid_json")


def _stop_at_first_failure(schema: Any) -> Any:
    """The schema of a model, changed so that its lists and mappings fail at the first item that is wrong."""
    if isinstance(schema, dict) and schema.get("type") in ("list", "dict"):
        schema["fail_fast"] = True
    if isinstance(schema, dict | list | tuple):
        for part in schema.values() if isinstance(schema, dict) else schema:
            _stop_at_first_failure(part)
    return schema


class DialectModel(BaseModel):
    """What a dialect's bodies are made of: types are not coerced, no NaN, and unknown fields are kept.

    What a dialect does with an unknown field is its own decision: `ignored_names` for the header, or a refusal.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler, /
    ) -> CoreSchema:
        """One wrong item of a list is enough: a million of them would cost seconds, and gigabytes of complaints."""
        return _stop_at_first_failure(handler(source))


async def read_body(request: Request, model: type[_Model], *, max_bytes: int = MAX_BODY_BYTES) -> _Model:
    """The body of a request as `model`.

    Raises:
        InvalidRequest: it is not JSON, or not what `model` allows; `param` is the path of the field.
        BodyTooLarge: it has over `max_bytes`.
    """
    return validate(model, await read_json(request, max_bytes))


async def read_json(request: Request, max_bytes: int = MAX_BODY_BYTES) -> dict[str, Any]:
    """The body of a request as a JSON object.

    Raises:
        InvalidRequest: it is empty, compressed, or not a JSON object within the bounds (kind `invalid_json`).
        BodyTooLarge: it has over `max_bytes`.
    """
    raw = await _raw_body(request, max_bytes)
    if len(raw) >= _LARGE_BYTES:
        return await asyncio.to_thread(parse_json, raw)
    return parse_json(raw)


def parse_json(raw: bytes) -> dict[str, Any]:
    """Bytes as a JSON object: no NaN or infinity, no repeated keys, no lone surrogates, nothing too deep or long.

    Raises:
        InvalidRequest: of kind `invalid_json`, saying what is wrong without a word of the body.
    """
    if not raw.strip():
        raise EmptyBody
    try:
        found = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise _no_json(f"The request body is not UTF-8: a wrong byte at {error.start}.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _no_json(f"The request body is not JSON: {error.msg.partition(':')[0]} at {where}.") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(found, dict):
        raise _no_json(f"The request body is a JSON {_json_type(found)}, not an object.")
    _check_extent(found)
    if _HALF_SURROGATE.search(raw):
        _check_surrogates(found)
    return found


def validate(model: type[_Model], body: Mapping[str, Any]) -> _Model:
    """A parsed body as `model`.

    Raises:
        InvalidRequest: a field is missing or not allowed; `param` is its path.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        # Of a union every branch complains; the one that got deepest is what the caller meant.
        worst = max(problems, key=lambda one: len(one["loc"]))
        param = _field_path(worst["loc"], body, missing=worst["type"] == "missing")
        if worst["type"] == "missing":
            raise InvalidRequest(f"{param} is required.", param=param, kind="missing_field") from None
        message = _PYDANTICS_WORDS.sub("", worst["msg"]).rstrip(".")
        raise InvalidRequest(f"{param or 'The body'} {message}.", param=param or None) from None


def ignored_names(model: BaseModel, *without_effect: str) -> tuple[str, ...]:
    """For `IGNORED_HEADER`: the given fields without effect, which `model` does not know, or which are named here.

    Fields of nested models come with their path (`messages[0].cache_control`).
    """
    given = [name for name in without_effect if name in model.model_fields_set]
    return tuple(dict.fromkeys([*given, *islice(unknown_names(model), _MAX_IGNORED)]))[:_MAX_IGNORED]


def unknown_names(model: BaseModel) -> Iterator[str]:
    """The fields that were given and that `model` does not know, with their paths; a name that is none is `?`."""
    for name in _unknown(model, ""):
        yield name if _HEADER_NAME.fullmatch(name) else "?"


def json_body(model: type[BaseModel], **examples: Mapping[str, Any]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its body as `model`, with named examples."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    content: dict[str, Any] = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


async def _raw_body(request: Request, max_bytes: int) -> bytes:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise InvalidRequest(
            "The request body is compressed.", "Send it as it is.", kind="unsupported_content_encoding"
        )
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise BodyTooLarge(max_bytes)
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                raise BodyTooLarge(max_bytes)
            parts.append(part)
    except ClientDisconnect:
        raise ClientGone from None
    return b"".join(parts)


def _no_json(message: str, hint: str = "") -> InvalidRequest:
    return InvalidRequest(message, hint, kind="invalid_json")


def _too_deep() -> InvalidRequest:
    return _no_json(f"The request body is nested over {_MAX_DEPTH} levels deep.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _no_json("The request body repeats a key in one object.", "Give every field once.")
    return found


def _constant(word: str) -> float:
    raise _no_json(f"The request body holds {word}, which is no JSON number.")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS:
        raise _no_json(f"The request body holds an integer of {len(digits)} digits.")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _no_json("The request body holds a number that is too large.")
    return value


def _json_type(value: object) -> str:
    return {list: "array", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _check_extent(body: dict[str, Any]) -> None:
    """Refuse what is nested too deep, or holds too much."""
    level: list[Any] = [body]
    num_values = 0
    for _ in range(_MAX_DEPTH):
        num_values += sum(map(len, level))
        if num_values > _MAX_VALUES:
            raise _no_json(f"The request body holds over {_MAX_VALUES} values.", "Send less at once.")
        level = [child for value in level for child in _children(value)]
        if not level:
            return
    raise _too_deep()


def _children(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, dict) else value
    return [child for child in values if isinstance(child, dict | list)]


def _check_surrogates(body: dict[str, Any]) -> None:
    """Refuse halves of surrogate pairs, which no encoding has; json.loads has joined the whole ones."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _no_json("The request body holds a lone surrogate, which is no Unicode text.") from None


def _field_path(location: tuple[int | str, ...], body: Any, *, missing: bool) -> str:
    """The path of a field as a person writes it. The names of a union's branches are left out."""
    path = ""
    for number, part in enumerate(location):
        if isinstance(part, int) and isinstance(body, list) and part < len(body):
            path, body = f"{path}[{part}]", body[part]
        elif isinstance(part, str) and isinstance(body, dict) and part in body:
            path, body = f"{path}.{part}", body[part]
        elif isinstance(part, str) and missing and number == len(location) - 1:
            path = f"{path}.{part}"
    return path.removeprefix(".")


def _unknown(model: BaseModel, prefix: str) -> Iterator[str]:
    for name in model.model_extra or {}:
        yield f"{prefix}{name}"
    for name in model.model_fields_set & type(model).model_fields.keys():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _unknown(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _unknown(item, f"{prefix}{name}[{position}].")
