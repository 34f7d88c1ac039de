"""Models whose template knows no tools: they are told of them in the system prompt, and answer as in `hermes`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["FORMAT", "instructions", "written_call", "written_result"]

FORMAT: Final = ToolFormat(
    name="generic",
    fits=lambda source: True,
    make_body=json_body(),
    starts=("<tool_call>",),
    ends=("</tool_call>",),
    bare_starts=("{",),
    envelope=Envelope("<tool_call>\n", separator="\n</tool_call>\n<tool_call>\n", closes="\n</tool_call>"),
)


def instructions(tools: Iterable[Mapping[str, Any]]) -> str:
    """What the system prompt says of tools, each a JSON-ready description."""
    described = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return (
        "You may call these tools, each described by a line of JSON:\n"
        f"{described}\n"
        "To call one, reply with nothing but:\n"
        '<tool_call>\n{"name": <its name>, "arguments": <its arguments as a JSON object>}\n</tool_call>\n'
        "Its result comes as the next message."
    )


def written_call(name: str, arguments: Any) -> str:
    """A call in a conversation, as the model would write it."""
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{call}\n</tool_call>"


def written_result(text: str) -> str:
    """A tool's result, as the model reads it."""
    return f"The result of the tool:\n{text}"
