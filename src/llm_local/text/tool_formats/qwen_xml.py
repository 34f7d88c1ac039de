"""Qwen3-Coder and Qwen 3.5: `<function=NAME>` and `<parameter=NAME>` elements between `<tool_call>` and `</tool_call>`.

Values are plain text; the tool's schema says which of them are numbers and the like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.delimited_body import delimited_body
from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.text_values import TextArguments, schema_of, typed_value

__all__ = ["FORMAT"]


def _parse(body: str, tools: Sequence[ToolDefinition]) -> tuple[str, Mapping[str, Any]] | None:
    body = body.strip()
    head, found, rest = body.partition(">")
    if not found or not head.startswith("<function="):
        return None
    name = head.removeprefix("<function=").strip()
    end = rest.rfind("</function>")
    if end < 0 or rest[end:].strip() != "</function>":
        return None
    schema = schema_of(name, tools)
    arguments: dict[str, Any] = {}
    for key, value in _parameters(rest[:end]):
        if key is None or key in arguments:
            return None
        arguments[key] = typed_value(value, key, schema)
    return name, arguments


def _parameters(text: str) -> Iterator[tuple[str | None, str]]:
    """Each parameter; a name of None where the text is none. One newline on each side of a value is layout."""
    place = 0
    while (start := text.find("<parameter=", place)) >= 0:
        name_end, end = text.find(">", start), text.find("</parameter>", start)
        if text[place:start].strip() or not start < name_end < end:
            yield None, ""
            return
        value = text[name_end + 1 : end].removeprefix("\n").removesuffix("\n")
        yield text[start + len("<parameter=") : name_end].strip(), value
        place = end + len("</parameter>")
    if text[place:].strip():
        yield None, ""


FORMAT = ToolFormat(
    name="qwen-xml",
    fits=lambda source: "<tool_call>" in source and "<function=" in source and "<parameter=" in source,
    make_body=delimited_body("</tool_call>", _parse),
    starts=("<tool_call>",),
    ends=("</tool_call>",),
    envelope=Envelope(
        "<tool_call>\n<function=",
        before="",
        between=">\n",
        after="</function>\n</tool_call>",
        separator="\n<tool_call>\n<function=",
        controls=("<tool_call>", "</tool_call>"),
        names=r"[^\s<>]+",
        arguments=TextArguments(
            "<parameter=", ">\n", "\n</parameter>\n", never=("</parameter>", "</tool_call>")
        ),
    ),
)
