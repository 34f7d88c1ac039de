"""Llama 3: a reply that is a JSON object, or several with semicolons between; `<|python_tag|>` may come first."""

from __future__ import annotations

from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["FORMAT"]

FORMAT = ToolFormat(
    name="llama",
    fits=lambda source: "<|python_tag|>" in source or '"parameters": dictionary of argument' in source,
    make_body=json_body(lists=False),
    starts=("<|python_tag|>",),
    ends=(";",),
    bare_starts=("{",),
    envelope=Envelope("", between='", "parameters": ', separator="; "),
)
