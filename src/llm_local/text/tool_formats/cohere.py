"""Cohere Command R7B, A and later: a JSON list between `<|START_ACTION|>` and `<|END_ACTION|>`."""

from __future__ import annotations

from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["FORMAT"]

FORMAT = ToolFormat(
    name="cohere",
    fits=lambda source: "<|START_ACTION|>" in source,
    make_body=json_body(),
    starts=("<|START_ACTION|>",),
    ends=("<|END_ACTION|>",),
    envelope=Envelope(
        "<|START_ACTION|>[", before='{"tool_name": "', between='", "parameters": ', separator=", ", closes="]"
    ),
)
