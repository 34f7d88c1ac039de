"""A chat request's messages and tools as our own words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from llm_local.api.ollama.errors import lacks
from llm_local.api.ollama.schemas import OllamaCall, OllamaMessage, OllamaTool
from llm_local.errors import InvalidRequest
from llm_local.messages import Message, Role, ToolCall, ToolDefinition

__all__ = ["messages_of", "tools_of"]

_NO_PARAMETERS: Final = {"type": "object", "properties": {}}


def messages_of(messages: Sequence[OllamaMessage], model: str) -> tuple[Message, ...]:
    """The conversation. Calls and results without an id, as most clients send them, find each other again.

    Raises:
        InvalidRequest: an unknown role, or a picture; `param` names it.
    """
    found: list[Message] = []
    waiting: list[ToolCall] = []  # calls without a result
    num_calls = 0
    for index, message in enumerate(messages):
        param = f"messages[{index}]"
        if message.images:
            raise lacks(model, "images", f"{param}.images")
        role = _role(message.role, param)
        calls: tuple[ToolCall, ...] = ()
        call_id = None
        if role == "assistant":
            calls = tuple(_call(call, num_calls + n) for n, call in enumerate(message.tool_calls or ()))
            num_calls += len(calls)
            waiting += calls
        elif role == "tool":
            call_id = message.tool_call_id or _id_of_result(waiting, message.tool_name)
            waiting = [call for call in waiting if call.id != call_id]
        found.append(
            Message(
                role=role,
                content=message.content or "",
                name=message.tool_name if role == "tool" else None,
                reasoning=(message.thinking or None) if role == "assistant" else None,
                tool_calls=calls,
                tool_call_id=call_id,
            )
        )
    return tuple(found)


def tools_of(tools: Sequence[OllamaTool] | None) -> tuple[ToolDefinition, ...]:
    """The tools that are offered.

    Raises:
        InvalidRequest: one is of another type than function.
    """
    found = []
    for index, tool in enumerate(tools or ()):
        if tool.type not in (None, "", "function"):
            param = f"tools[{index}].type"
            raise InvalidRequest(f"{param} is not supported.", "Tools must be functions.", param=param)
        function = tool.function
        parameters = _NO_PARAMETERS if function.parameters is None else function.parameters
        found.append(ToolDefinition(function.name, function.description or "", parameters))
    return tuple(found)


def _role(given: str, param: str) -> Role:
    for role in get_args(Role):
        if given.lower() == role:
            return role
    raise InvalidRequest(
        f"{param}.role is unknown.", f"Use one of {', '.join(get_args(Role))}.", param=f"{param}.role"
    )


def _call(call: OllamaCall, number: int) -> ToolCall:
    # nine letters and digits, which some chat templates insist on
    return ToolCall(call.id or f"call{number:05d}", call.function.name, call.function.arguments or {})


def _id_of_result(waiting: Sequence[ToolCall], name: str | None) -> str | None:
    """The id of the first call that waits for a result of that tool, or of any where no tool is named."""
    return next((call.id for call in waiting if name is None or call.name == name), None)
