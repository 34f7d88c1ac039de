"""A call that must come: what a format's envelope and the tools' schemas make of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from llm_local.errors import InvalidRequest
from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.rules import Rules, TokenOf
from llm_local.text.tool_formats.schemas import speaking

__all__ = ["forced_calls"]

MAX_CALLS: Final = 8  # a model that calls and calls must come to an end


def forced_calls(
    tool_format: ToolFormat, tools: Sequence[ToolDefinition], choice: str, token_of: TokenOf
) -> tuple[str, str]:
    """What the reply begins with, and the Lark grammar of all that follows it, in which `<[5]>` is a token.

    One call to the tool named `choice`; where it is "required" to any tool, and up to eight calls where the format
    can separate them.

    Raises:
        InvalidRequest: calls of this format, or to a tool of this name or schema, cannot be forced.
    """
    envelope = tool_format.envelope
    if envelope is None:
        raise InvalidRequest(
            f"tool_choice {choice!r} cannot be kept: calls of the format {tool_format.name} cannot be forced.",
            "Use tool_choice auto.",
            param="tool_choice",
        )
    if choice != "required":
        tools = [tool for tool in tools if tool.name == choice]
    return envelope.opens, _grammar(envelope, tools, Rules(token_of, envelope.controls), choice == "required")


def _grammar(envelope: Envelope, tools: Sequence[ToolDefinition], rules: Rules, many: bool) -> str:
    call = rules.choice(_call(envelope, tool, rules) for tool in tools)
    parts = [call]
    if many and envelope.separator is not None:
        parts.append(f"({rules.literal(envelope.separator)} {call}){{0,{MAX_CALLS - 1}}}")
    parts.append(rules.literal(envelope.closes))
    return rules.text(" ".join(filter(None, parts)))


def _call(envelope: Envelope, tool: ToolDefinition, rules: Rules) -> str:
    if envelope.names and not re.fullmatch(envelope.names, tool.name):
        raise InvalidRequest(
            f"A tool called {tool.name!r} cannot be kept in this model's way to call tools.", param="tools"
        )
    name = tool.name if envelope.names else json.dumps(tool.name)[1:-1]
    head = rules.literal(envelope.before + name + envelope.between)
    if envelope.arguments is not None:
        arguments = envelope.arguments(tool, rules)
    else:
        arguments = rules.json(_closed({**tool.parameters, "type": "object"}))
    return " ".join(filter(None, (head, arguments, rules.literal(envelope.after))))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A tool of which no parameter is known takes none."""
    if schema.get("properties") or speaking(schema) - {"type", "properties", "required"}:
        return schema
    return {**schema, "additionalProperties": False}
