"""A call that must come: what a format's envelope and the tools' schemas make of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from llm_local.errors import InvalidRequest
from llm_local.messages import ToolDefinition
from llm_local.options import Constraint
from llm_local.text.tool_formats.format import Envelope, ToolFormat

__all__ = ["forced_calls"]

MAX_CALLS: Final = 8  # a model that calls and calls must come to an end


def forced_calls(
    tool_format: ToolFormat, tools: Sequence[ToolDefinition], choice: str
) -> tuple[str, Constraint]:
    """What the reply begins with, and the constraint for all that follows it.

    One call to the tool named `choice`; where it is "required" to any tool, and up to eight calls where the format
    has plain text between calls.

    Raises:
        InvalidRequest: calls of this format cannot be forced.
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
    return envelope.opens, Constraint("lark", _grammar(envelope, tools, many=choice == "required"))


def _grammar(envelope: Envelope, tools: Sequence[ToolDefinition], *, many: bool) -> str:
    more = ""
    if many and envelope.separator is not None:
        more = f" ({_text(envelope.separator)} call){{0,{MAX_CALLS - 1}}}"
    closes = f" {_text(envelope.closes)}" if envelope.closes else ""
    rules = [f"start: call{more}{closes}", "call: " + " | ".join(f"call_{n}" for n in range(len(tools)))]
    for number, tool in enumerate(tools):
        head = envelope.before + json.dumps(tool.name)[1:-1] + envelope.between
        tail = f" {_text(envelope.after)}" if envelope.after else ""
        schema = json.dumps({"type": "object", **tool.parameters})
        rules += [f"call_{number}: {_text(head)} args_{number}{tail}", f"args_{number}: %json {schema}"]
    return "\n".join(rules)


def _text(literal: str) -> str:
    return json.dumps(literal, ensure_ascii=False)
