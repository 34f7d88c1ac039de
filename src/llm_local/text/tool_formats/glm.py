"""GLM 4.5 and later: a name, then `<arg_key>` and `<arg_value>` elements in turns, inside of `<tool_call>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.delimited_body import delimited_body
from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.text_values import TextArguments, schema_of, typed_value

__all__ = ["FORMAT"]


def _parse(body: str, tools: Sequence[ToolDefinition]) -> tuple[str, Mapping[str, Any]] | None:
    head, *members = body.split("<arg_key>")
    name = head.strip()
    schema = schema_of(name, tools)
    arguments: dict[str, Any] = {}
    for member in members:
        key, closed, rest = member.partition("</arg_key>")
        before, opened, rest = rest.partition("<arg_value>")
        value, ended, after = rest.partition("</arg_value>")
        key = key.strip()
        if not (closed and opened and ended) or before.strip() or after.strip() or key in arguments:
            return None
        arguments[key] = typed_value(value, key, schema)
    return name, arguments


FORMAT = ToolFormat(
    name="glm",
    fits=lambda source: "<arg_key>" in source and "<tool_call>" in source,
    make_body=delimited_body("</tool_call>", _parse),
    starts=("<tool_call>",),
    ends=("</tool_call>",),
    envelope=Envelope(
        "<tool_call>",
        before="",
        between="\n",
        after="</tool_call>",
        separator="\n<tool_call>",
        controls=("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        names=r"[^\s<>]+",
        arguments=TextArguments(
            "<arg_key>",
            "</arg_key>\n<arg_value>",
            "</arg_value>",
            never=("</arg_value>", "<arg_key>", "</tool_call>"),
            after="\n",
        ),
    ),
)
