"""A request's system prompt, messages and tools as our own words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from llm_local.api.anthropic.errors import missing, unsupported
from llm_local.api.anthropic.schemas import (
    AnthropicMessage,
    AnthropicTool,
    AnthropicToolChoice,
    ContentBlock,
    DocumentSource,
)
from llm_local.errors import InvalidRequest, UnsupportedTask
from llm_local.messages import Message, ToolCall, ToolDefinition

__all__ = [
    "bare_call_id",
    "chosen_tool",
    "dropped_blocks",
    "messages_of",
    "shown_call_id",
    "system_of",
    "tools_of",
]

_PREFIX: Final = "toolu_"
_OURS: Final = re.compile(r"toolu_([A-Za-z0-9]{9})")
_BILLING: Final = re.compile(r"x-anthropic-billing-header:[^\n]*\n?")
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}
_PICTURES: Final = ("image", "container_upload")
_READ: Final = ("text", "thinking", "tool_use", "tool_result", "document", "search_result", *_PICTURES)


def shown_call_id(call_id: str) -> str:
    """The id of a call as Anthropic's clients know them."""
    return _PREFIX + call_id


def bare_call_id(call_id: str) -> str:
    """The id of a call as we made it: some chat templates insist on its nine letters. Foreign ids stay as they are."""
    found = _OURS.fullmatch(call_id)
    return found[1] if found else call_id


def system_of(system: str | list[ContentBlock] | None) -> tuple[Message, ...]:
    """The system prompt as one message; none where it says nothing.

    Raises:
        InvalidRequest: a block of it is no text.
    """
    if isinstance(system, list):
        parts = [_text(block, f"system[{index}]") for index, block in enumerate(system) if not _bills(block)]
        system = _lines(parts)
    return (Message("system", system),) if system else ()


def messages_of(messages: Sequence[AnthropicMessage]) -> tuple[Message, ...]:
    """The conversation. What follows each other in one role is one turn; results of tools are turns of their own.

    Raises:
        InvalidRequest: a block lacks what its type needs, or holds what no model here can read; `param` names it.
    """
    found: list[Message] = []
    for index, message in enumerate(messages):
        for turn in _turns(message, f"messages[{index}]"):
            before = found[-1] if found else None
            if before is not None and before.role == turn.role != "tool":
                found[-1] = _combined(before, turn)
            else:
                found.append(turn)
    if found and found[-1] == Message("assistant", ""):
        found.pop()  # the beginning of an answer that has not begun
    if not found:
        raise InvalidRequest("messages holds no text.", param="messages")
    return tuple(found)


def dropped_blocks(
    system: str | list[ContentBlock] | None, messages: Sequence[AnthropicMessage]
) -> list[str]:
    """The paths of blocks that are left out: what is for Anthropic's servers, or by them, and unknown ones."""
    found = []
    for path, block in _walk(system, "system"):
        if block.type not in _READ or _bills(block):
            found.append(path)
    for index, message in enumerate(messages):
        for path, block in _walk(message.content, f"messages[{index}].content"):
            if block.type not in _READ:
                found.append(path)
    return found


def tools_of(tools: Sequence[AnthropicTool] | None) -> tuple[ToolDefinition, ...]:
    """The tools that are offered.

    Raises:
        InvalidRequest: one is of another type than `custom`, or without schema.
    """
    found = []
    for index, tool in enumerate(tools or ()):
        if tool.type not in (None, "custom"):
            what = f"A tool of the type {str(tool.type)[:40]!r}"
            raise unsupported(f"tools[{index}].type", "Only tools of the client's own run here.", what=what)
        if tool.input_schema is None:
            raise missing(f"tools[{index}].input_schema")
        schema = tool.input_schema or _NO_PARAMETERS
        found.append(ToolDefinition(tool.name, tool.description or "", schema, bool(tool.strict)))
    return tuple(found)


def chosen_tool(tools: Sequence[ToolDefinition], choice: AnthropicToolChoice) -> str:
    """Our word for `tool_choice`.

    Raises:
        InvalidRequest: a tool must be called, and it is not there.
    """
    if choice.type in ("auto", "none"):
        return choice.type
    if not tools:
        raise InvalidRequest(
            f"tool_choice is {choice.type!r}, but there are no tools.", param="tool_choice.type"
        )
    if choice.type == "any":
        return "required"
    if choice.name is None:
        raise missing("tool_choice.name")
    if all(tool.name != choice.name for tool in tools):
        raise InvalidRequest(
            f"tool_choice is {choice.name[:80]!r}, but there is no such tool.", param="tool_choice.name"
        )
    return choice.name


def _bills(block: ContentBlock) -> bool:
    """True of a line in the system prompt that is for Anthropic's bills.

    It differs in every request, so with it at their beginning no two prompts would have anything in common to keep.
    """
    return block.type == "text" and _BILLING.fullmatch(block.text or "") is not None


def _turns(message: AnthropicMessage, param: str) -> Iterator[Message]:
    if isinstance(message.content, str):
        yield Message(message.role, message.content)
    elif message.role == "assistant":
        yield _assistant(message.content, f"{param}.content")
    else:
        yield from _user_turns(message, f"{param}.content")


def _assistant(blocks: Sequence[ContentBlock], param: str) -> Message:
    reasoning, calls, rest = [], [], []
    for index, block in enumerate(blocks):
        place = f"{param}[{index}]"
        if block.type == "thinking":
            reasoning.append(_needed(block.thinking, f"{place}.thinking"))
        elif block.type == "tool_use":
            name = _needed(block.name, f"{place}.name")
            call_id = _needed(block.id, f"{place}.id")
            calls.append(ToolCall(bare_call_id(call_id), name, block.input or {}))
        else:
            rest.append(_text(block, place))
    text = "\n".join(one for one in rest if one)
    thought = "\n".join(one for one in reasoning if one)
    return Message("assistant", text, reasoning=thought or None, tool_calls=tuple(calls))


def _user_turns(message: AnthropicMessage, param: str) -> Iterator[Message]:
    texts: list[str] = []
    for index, block in enumerate(message.content):
        place = f"{param}[{index}]"
        if not isinstance(block, ContentBlock):
            continue
        if block.type != "tool_result":
            texts.append(_text(block, place))
            continue
        if any(texts):
            yield Message(message.role, _lines(texts))
        texts = []
        call_id = _needed(block.tool_use_id, f"{place}.tool_use_id")
        yield Message("tool", _result(block, place), tool_call_id=bare_call_id(call_id))
    if any(texts):
        yield Message(message.role, _lines(texts))


def _result(block: ContentBlock, param: str) -> str:
    content = block.content
    text = content if isinstance(content, str) else _joined(content or (), f"{param}.content")
    return f"Error: {text}" if block.is_error else text


def _text(block: ContentBlock, param: str) -> str:
    """The text of one block; nothing of a kind that is left out.

    Raises:
        InvalidRequest: it has none, or is what no model here can read.
    """
    if block.type == "text":
        return _needed(block.text, f"{param}.text")
    if block.type == "document":
        return _lines([block.title or "", block.context or "", _document(block.source, param)])
    if block.type == "search_result":
        source = block.source if isinstance(block.source, str) else ""
        return _lines([block.title or "", source, _content(block.content, f"{param}.content")])
    if block.type in _PICTURES:
        raise _no_text(param, block.type)
    return ""


def _document(source: DocumentSource | str | None, param: str) -> str:
    if isinstance(source, DocumentSource) and source.type == "text":
        return _needed(source.data, f"{param}.source.data")
    if isinstance(source, DocumentSource) and source.type == "content":
        return _content(source.content, f"{param}.source.content")
    raise _no_text(param, "document")


def _content(content: str | Sequence[ContentBlock] | None, param: str) -> str:
    return content if isinstance(content, str) else _joined(content or (), param)


def _joined(blocks: Sequence[ContentBlock], param: str) -> str:
    return _lines([_text(block, f"{param}[{index}]") for index, block in enumerate(blocks)])


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(text for text in texts if text)


def _combined(first: Message, second: Message) -> Message:
    """Two turns of one role as one."""
    between = "\n\n" if first.content and second.content else ""
    thought = [one for one in (first.reasoning, second.reasoning) if one]
    return replace(
        first,
        content=f"{first.content}{between}{second.content}",
        reasoning="\n".join(thought) or None,
        tool_calls=(*first.tool_calls, *second.tool_calls),
    )


def _needed(value: str | None, param: str) -> str:
    if value is None:
        raise missing(param)
    return value


def _no_text(param: str, kind: str) -> UnsupportedTask:
    return UnsupportedTask(
        f"{param} is of the type {kind!r} and holds no text, but the models here take only text.",
        "Send its text.",
        param=param,
    )


def _walk(content: str | Sequence[ContentBlock] | None, path: str) -> Iterator[tuple[str, ContentBlock]]:
    for index, block in enumerate(() if isinstance(content, str) else content or ()):
        place = f"{path}[{index}]"
        yield place, block
        if block.type in _READ:
            yield from _walk(block.content, f"{place}.content")
            if isinstance(block.source, DocumentSource):
                yield from _walk(block.source.content, f"{place}.source.content")
