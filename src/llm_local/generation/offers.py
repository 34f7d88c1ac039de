"""What a request may ask for beyond plain text: checked before anything is rendered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from llm_local.errors import InvalidRequest
from llm_local.messages import ToolDefinition
from llm_local.options import GenerationOptions

__all__ = ["check_goes_on", "check_raw", "offered_tools"]

_WORDS: Final = ("auto", "none", "required")


def offered_tools(tools: Sequence[ToolDefinition], choice: str) -> tuple[ToolDefinition, ...]:
    """The tools the model is told of.

    Raises:
        InvalidRequest: two tools of one name, a name that is a choice itself, a choice there is no tool for, or
            parameters that are no schema of an object.
    """
    names = [tool.name for tool in tools]
    for name in names:
        if not name or names.count(name) > 1:
            what = f"{names.count(name)} tools are called {name!r}" if name else "A tool has no name"
            raise InvalidRequest(f"{what}.", "Every tool needs a name of its own.", param="tools")
        if name in _WORDS:
            raise InvalidRequest(
                f"A tool is called {name!r}, which tool_choice means otherwise.", param="tools"
            )
    for tool in tools:
        _check_parameters(tool)
    if choice == "none":
        return ()
    if choice not in ("auto", *names) and not (choice == "required" and tools):
        asked = "asks for a call" if choice == "required" else f"is {choice!r}"
        offered = f"Tools given: {', '.join(names)}." if names else "No tools are given."
        raise InvalidRequest(f"tool_choice {asked}, but there is no such tool.", offered, param="tool_choice")
    return tuple(tools)


def _check_parameters(tool: ToolDefinition) -> None:
    """Arguments are always an object: what allows none could be called by nobody."""
    schema: object = tool.parameters
    kinds = schema.get("type", "object") if isinstance(schema, Mapping) else "no object"
    if kinds != "object" and not (isinstance(kinds, list | tuple) and "object" in kinds):
        found = f"are of type {kinds!r}" if isinstance(schema, Mapping) else "are no JSON schema"
        raise InvalidRequest(
            f"The parameters of the tool {tool.name!r} {found}.",
            'They must be a schema of type object, such as {"type": "object", "properties": {}}.',
            param="tools",
        )


def check_raw(options: GenerationOptions) -> None:
    """Refuse for a raw text what only a chat template knows how to do.

    Raises:
        InvalidRequest: naming the option.
    """
    for name, off in (("think", "default"), ("max_thinking_tokens", None), ("tool_choice", "auto")):
        if getattr(options, name) not in (off, "none" if name == "tool_choice" else off):
            raise InvalidRequest(f"{name} has no place with a raw text.", "Use a conversation.", param=name)


def check_goes_on(options: GenerationOptions) -> None:
    """Refuse for an answer that is begun what holds for a whole one.

    Raises:
        InvalidRequest: naming the option.
    """
    if options.constraint is not None:
        raise InvalidRequest(
            "An answer under a constraint cannot be continued, because the constraint is about the whole of it.",
            "Drop the constraint, or ask for the whole answer again.",
            param="constraint",
        )
    if options.tool_choice not in ("auto", "none"):
        raise InvalidRequest(
            "tool_choice asks for a call, but the answer is begun already.", param="tool_choice"
        )
