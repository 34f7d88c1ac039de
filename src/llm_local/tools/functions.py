"""A Python function made a tool: described by its name, its docstring and its type hints."""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema

from llm_local.errors import InvalidRequest
from llm_local.messages import ToolDefinition
from llm_local.tools.docstrings import read_docstring
from llm_local.tools.schemas import plain_schema
from llm_local.tools.tool import Tool, ToolFailure

__all__ = ["make_tool"]

# What every format and dialect can carry: the OpenAI definition of a function's name.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES: Final = ("auto", "none", "required")  # what tool_choice means otherwise
# JSON has no NaN, and null would say that there is no value.
_JSON: Final = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="strings"))
MAX_FAULTS: Final = 5


def make_tool(
    function: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    time_limit_s: float | None = None,
    source: str = "function",
) -> Tool:
    """A tool that calls `function`, which may be a coroutine function.

    The description is its docstring without the sections about parameters, results and errors; a parameter's is what
    `Annotated[..., Field(description=...)]` or the docstring says. A parameter without a default must be given, and no
    others may. Arguments are converted to what the hints say, a dataclass or a date. A result that is no text becomes
    JSON.

    Raises:
        InvalidRequest: something cannot be described to a model; the message names it.
    """
    # a class, a partial or an object with __call__ has no name, docstring and hints of its own to go by
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise _wrong(f"{function!r} is no function.", "Make tools of functions and methods.")
    called = function.__name__ if name is None else name
    if not _NAME.fullmatch(called) or called in _CHOICES:
        raise _wrong(
            f"A tool cannot be called {called!r}.",
            "A name has 1 to 64 letters, digits, _ and -, and is none of auto, none, required; set one with name=.",
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _wrong(f"The function {called} is a generator.", "Return its results as a list.")
    said, described = read_docstring(function.__doc__)
    model, aliases = _arguments_model(function, called, described)
    try:
        schema = plain_schema(model.model_json_schema(schema_generator=_QuietGenerator))
    except PydanticUserError as error:
        raise _undescribed(called, error) from error
    schema.setdefault("properties", {})
    definition = ToolDefinition(called, said if description is None else description, schema)
    return Tool(definition, _Caller(function, called, model, aliases), source, time_limit_s)


class _QuietGenerator(GenerateJsonSchema):
    """A default that has no JSON form is not told, and that is all there is to say about it."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}


class _Caller:
    """Runs the function: what `Tool.run` is."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        model: type[BaseModel],
        aliases: Mapping[str, str],
    ) -> None:
        self._function = function
        self._name = name
        self._model = model
        self._aliases = aliases

    def __call__(self, arguments: Mapping[str, Any]) -> str:
        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise ToolFailure(f"The arguments are not valid: {_faults(error)}.") from error
        # what was not given stays the function's own default
        given = {
            alias: getattr(checked, field)
            for field, alias in self._aliases.items()
            if field in checked.model_fields_set
        }
        result = self._function(**given)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return _as_text(result, self._name)


def _arguments_model(
    function: Callable[..., Any], name: str, described: Mapping[str, str]
) -> tuple[type[BaseModel], dict[str, str]]:
    """What checks and converts the arguments; and by its own field names, which are never wrong, the real ones."""
    fields: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    hints = _hints(function, name)
    for parameter in inspect.signature(function).parameters.values():
        _check_parameter(parameter, name, hints)
        field = f"argument_{len(fields)}"
        aliases[field] = parameter.name
        details: dict[str, Any] = {"alias": parameter.name}
        if parameter.name in described and not _has_description(hints[parameter.name]):
            details["description"] = described[parameter.name]
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[field] = (Annotated[hints[parameter.name], Field(**details)], default)
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields), aliases
    except (PydanticUserError, TypeError, NameError) as error:
        raise _undescribed(name, error) from error


def _check_parameter(parameter: inspect.Parameter, name: str, hints: Mapping[str, Any]) -> None:
    what = f"The parameter {parameter.name} of the function {name}"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        raise _wrong(f"The function {name} takes {stars}{parameter.name}.", "Name each parameter.")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise _wrong(f"{what} cannot be given by its name.", "Remove the / behind it.")
    if parameter.name not in hints:
        raise _wrong(f"{what} has no type hint.", f"Write {parameter.name}: str, or what it is.")


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # a hint written as text is evaluated, and may be anything
        raise _wrong(
            f"The type hints of the function {name} cannot be read: {error}.",
            "Import what they name where the function is defined.",
        ) from error


def _has_description(hint: Any) -> bool:
    return any(getattr(one, "description", None) for one in getattr(hint, "__metadata__", ()))


def _as_text(result: Any, name: str) -> str:
    if isinstance(result, str):
        return str.__str__(result)
    try:
        return _JSON.dump_json(result).decode()
    except (ValueError, RecursionError) as error:
        raise ToolFailure(
            f"The tool {name} returned a {type(result).__name__} that cannot be told as JSON."
        ) from error


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
        for one in error.errors(include_url=False)[:MAX_FAULTS]
    )


def _undescribed(name: str, error: Exception) -> InvalidRequest:
    reason = str(error).partition("\n")[0].rstrip(".")
    return _wrong(
        f"The parameters of the function {name} cannot be described to a model: {reason}.",
        "Use str, int, float, bool, list, dict, Literal, enums, dataclasses and what is made of them.",
    )


def _wrong(message: str, hint: str) -> InvalidRequest:
    return InvalidRequest(message, hint, param="tools")
