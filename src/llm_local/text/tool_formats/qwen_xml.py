"""Qwen3-Coder and Qwen 3.5: `<function=NAME>` and `<parameter=NAME>` elements between `<tool_call>` and `</tool_call>`.

Values are plain text; the tool's schema says which of them are numbers and the like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.delimited_body import delimited_body
from llm_local.text.tool_formats.format import ToolFormat
from llm_local.text.tool_formats.json_body import load_json

__all__ = ["FORMAT", "properties_of", "typed_value"]


def properties_of(name: str, tools: Sequence[ToolDefinition]) -> Mapping[str, Any]:
    """The schemas of the parameters of the tool called `name`."""
    found = next((tool.parameters.get("properties") for tool in tools if tool.name == name), None)
    return found if isinstance(found, Mapping) else {}


def typed_value(text: str, schema: Any) -> Any:
    """A value written as plain text, as its JSON schema means it: the text itself where that is allowed."""
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    kinds = {kinds} if isinstance(kinds, str) else set(kinds or ())
    if "string" in kinds and not (text == "null" and "null" in kinds):
        return text
    value = load_json(text.strip())
    if value is None and text.strip() != "null":
        return {"True": True, "False": False, "None": None}.get(text.strip(), text)
    # where nothing is said of a type, only what can be nothing else is not text
    return value if kinds or not isinstance(value, str) else text


def _parse(body: str, tools: Sequence[ToolDefinition]) -> tuple[str, Mapping[str, Any]] | None:
    body = body.strip()
    head, found, rest = body.partition(">")
    if not found or not head.startswith("<function="):
        return None
    name = head.removeprefix("<function=").strip()
    end = rest.rfind("</function>")
    if end < 0 or rest[end:].strip() != "</function>":
        return None
    properties = properties_of(name, tools)
    arguments: dict[str, Any] = {}
    for key, value in _parameters(rest[:end]):
        if key is None or key in arguments:
            return None
        arguments[key] = typed_value(value, properties.get(key))
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
)
