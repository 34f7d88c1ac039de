"""Granite 3: a JSON list after `<|tool_call|>`, which is a special token, or after `<tool_call>`; nothing closes it."""

from __future__ import annotations

from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["FORMAT"]

FORMAT = ToolFormat(
    name="granite",
    fits=lambda source: "<|tool_call|>" in source and "<|/tool_call|>" not in source,
    make_body=json_body(),
    starts=("<|tool_call|>", "<tool_call>"),
    ends=("</tool_call>",),
    envelope=Envelope("<|tool_call|>[", separator=", ", closes="]"),
)
