"""Hermes, Qwen 2.5 and 3, SmolLM3, Granite 4, the starter model: JSON inside of `<tool_call>` and `</tool_call>`."""

from __future__ import annotations

from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["FORMAT"]

FORMAT = ToolFormat(
    name="hermes",
    fits=lambda source: "<tool_call>" in source and "<function=" not in source and "<arg_key>" not in source,
    make_body=json_body(broken_by="\n</tool_call>"),
    starts=("<tool_call>",),
    ends=("</tool_call>",),
    envelope=Envelope("<tool_call>\n"),
)
