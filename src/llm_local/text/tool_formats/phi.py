"""Phi-4-mini: a JSON list between `<|tool_call|>` and `<|/tool_call|>`, or after the word functools."""

from __future__ import annotations

from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["FORMAT"]

FORMAT = ToolFormat(
    name="phi",
    fits=lambda source: "<|/tool_call|>" in source or "<|/tool|>" in source,
    make_body=json_body(),
    starts=("<|tool_call|>", "functools"),
    ends=("<|/tool_call|>",),
    envelope=Envelope("<|tool_call|>[", separator=", ", closes="]"),
)
