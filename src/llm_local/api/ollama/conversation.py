"""A chat request's messages and tools as our own words. Pure."""

from __future__ import annotations

from collections import deque
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
    waiting = _WaitingCalls()
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
            waiting.add(calls)
        elif role == "tool":
            call_id = waiting.answered(message.tool_call_id, message.tool_name)
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


class _WaitingCalls:
    """Calls without a result, in their order; each step takes the same time however many there are."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._by_name: dict[str, deque[str]] = {}

    def add(self, calls: Sequence[ToolCall]) -> None:
        """These wait too."""
        for call in calls:
            self._ids[call.id] = None
            self._by_name.setdefault(call.name, deque()).append(call.id)

    def answered(self, call_id: str | None, name: str | None) -> str | None:
        """The id of the call that has its result now: of the first of that tool, or of any where none is named."""
        if not call_id:
            call_id = self._first(name) if name else next(iter(self._ids), None)
        self._ids.pop(call_id or "", None)
        return call_id

    def _first(self, name: str) -> str | None:
        ids = self._by_name.get(name, deque())
        while ids and ids[0] not in self._ids:
            ids.popleft()
        return ids[0] if ids else None
