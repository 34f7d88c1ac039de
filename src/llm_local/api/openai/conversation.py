"""A chat request's messages and tools as our own words. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from llm_local.api.openai.errors import missing, unsupported
from llm_local.api.openai.schemas import ChatMessage, ContentPart, FunctionCall, FunctionDefinition, Tool
from llm_local.errors import InvalidRequest, UnsupportedTask
from llm_local.messages import Message, Role, ToolCall, ToolDefinition

__all__ = [
    "bare_call_id",
    "bare_model",
    "call_arguments",
    "chosen_tools",
    "content_text",
    "messages_of",
    "shown_call_id",
    "tool_definition",
    "tools_of",
]

_ROLES: Final[dict[str, Role]] = {"developer": "system", "function": "tool"}
_PREFIX: Final = "call_"
_OURS: Final = re.compile(r"call_([A-Za-z0-9]{9})")
_TEXTS: Final = ("text", "input_text", "output_text", "reasoning_text")
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}


def shown_call_id(call_id: str) -> str:
    """The id of a call as OpenAI clients know them."""
    return _PREFIX + call_id


def bare_call_id(call_id: str) -> str:
    """The id of a call as we made it: some chat templates insist on its nine letters. Foreign ids stay as they are."""
    found = _OURS.fullmatch(call_id)
    return found[1] if found else call_id


def bare_model(name: str) -> str:
    """The name of a model without the tag that Ollama's clients put behind names that have none."""
    return name.removesuffix(":latest")


def messages_of(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """The conversation.

    Raises:
        InvalidRequest: a message has no content, or one that is no text; `param` names it.
    """
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def tools_of(tools: Sequence[Tool] | None) -> tuple[ToolDefinition, ...]:
    """The tools that are offered.

    Raises:
        InvalidRequest: one is of another type than function.
    """
    found = []
    for index, tool in enumerate(tools or ()):
        if tool.type != "function":
            what = f"A tool of the type {tool.type[:40]!r}"
            raise unsupported(f"tools[{index}].type", "Tools must be functions.", what=what)
        if tool.function is None:
            raise missing(f"tools[{index}].function")
        found.append(tool_definition(tool.function))
    return tuple(found)


def tool_definition(function: FunctionDefinition) -> ToolDefinition:
    """One function; without parameters it takes none."""
    parameters = _NO_PARAMETERS if function.parameters is None else function.parameters
    return ToolDefinition(function.name, function.description or "", parameters, bool(function.strict))


def chosen_tools(
    tools: tuple[ToolDefinition, ...], choice: str | dict[str, Any] | None
) -> tuple[tuple[ToolDefinition, ...], str]:
    """The tools the model is told of, and our word for `tool_choice`.

    Of `allowed_tools` the others are left out of the prompt.

    Raises:
        InvalidRequest: a choice of an unknown form, or a tool that is not there.
    """
    if choice is None or isinstance(choice, str):
        if choice not in (None, "auto", "none", "required"):
            raise _no_choice(f"is {str(choice)[:40]!r}")
        if choice == "required" and not tools:
            raise InvalidRequest("tool_choice is 'required', but there are no tools.", param="tool_choice")
        return tools, choice or "auto"
    kind = choice.get("type")
    if kind == "function":
        return tools, _offered(tools, choice)
    if kind == "allowed_tools":
        # Chat requests wrap what is flat in Responses.
        allowed = choice.get("allowed_tools", choice)
        wanted = allowed.get("tools") if isinstance(allowed, dict) else None
        if not isinstance(wanted, list) or not wanted:
            raise _no_choice("names no tools")
        names = {_offered(tools, one) for one in wanted}
        mode = allowed.get("mode", "auto")
        if mode not in ("auto", "required"):
            raise _no_choice("has an unknown mode")
        return tuple(tool for tool in tools if tool.name in names), mode
    raise _no_choice(f"is of the type {str(kind)[:40]!r}")


def call_arguments(call: FunctionCall, param: str) -> dict[str, Any]:
    """The arguments of a call as an object; nothing at all means none.

    Raises:
        InvalidRequest: they are no JSON object.
    """
    if isinstance(call.arguments, dict):
        return call.arguments
    text = (call.arguments or "").strip()
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{param}.arguments must be a JSON object as text.", param=f"{param}.arguments")
    return found


def _message(message: ChatMessage, param: str) -> Message:
    for name in ("function_call", "audio"):
        if getattr(message, name) is not None:
            hint = "Use tool_calls." if name == "function_call" else "Send text."
            raise unsupported(f"{param}.{name}", hint)
    assistant = message.role == "assistant"
    reasoning = message.reasoning_content or message.reasoning if assistant else None
    calls = _calls(message, param) if assistant else ()
    content = content_text(message.content, f"{param}.content")
    if content is None and message.refusal is not None:
        content = message.refusal
    if content is None and not calls and reasoning is None:
        raise missing(f"{param}.content")
    call_id = message.tool_call_id if message.role == "tool" else None
    return Message(
        role=_ROLES.get(message.role, message.role),  # type: ignore[arg-type]
        content=content or "",
        name=message.name,
        reasoning=reasoning,
        tool_calls=calls,
        tool_call_id=None if call_id is None else bare_call_id(call_id),
    )


def _calls(message: ChatMessage, param: str) -> tuple[ToolCall, ...]:
    found = []
    for index, call in enumerate(message.tool_calls or ()):
        arguments = call_arguments(call.function, f"{param}.tool_calls[{index}].function")
        found.append(ToolCall(bare_call_id(call.id or ""), call.function.name, arguments))
    return tuple(found)


def content_text(content: str | list[ContentPart] | None, param: str) -> str | None:
    """The text of a content, None where there is none; several parts are lines of it.

    Raises:
        InvalidRequest: a part is no text.
    """
    if content is None or isinstance(content, str):
        return content
    return "\n".join(_part(part, f"{param}[{index}]") for index, part in enumerate(content))


def _part(part: ContentPart, param: str) -> str:
    if part.type in _TEXTS or part.type == "refusal":
        text = part.refusal if part.type == "refusal" else part.text
        if text is None:
            raise missing(f"{param}.{'refusal' if part.type == 'refusal' else 'text'}")
        return text
    raise UnsupportedTask(
        f"{param} is of the type {part.type[:40]!r}, but the models here take only text.",
        "Send parts of the type text.",
        param=param,
    )


def _offered(tools: tuple[ToolDefinition, ...], wanted: Any) -> str:
    """The name in a choice of one function: nested in chat requests, flat in Responses."""
    inner = wanted.get("function", wanted) if isinstance(wanted, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    if not isinstance(name, str):
        raise _no_choice("names no function")
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(f"tool_choice is {name[:80]!r}, but there is no such tool.", param="tool_choice")
    return name


def _no_choice(what: str) -> InvalidRequest:
    return InvalidRequest(
        f"tool_choice {what}.",
        'Use "none", "auto", "required" or {"type": "function", "function": {"name": "..."}}.',
        param="tool_choice",
    )
