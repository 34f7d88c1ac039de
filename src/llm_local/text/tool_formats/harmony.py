"""gpt-oss: a message to `functions.NAME`, its channel and kind left out by the channel splitter, then the arguments.

Source: https://github.com/openai/harmony
"""

from __future__ import annotations

from llm_local.text.tool_formats.format import Envelope, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["FORMAT"]

FORMAT = ToolFormat(
    name="harmony",
    fits=lambda source: "<|channel|>" in source and "functions." in source,
    make_body=json_body(head=r"(?P<name>[^\s{}<]{1,64})\s*(?:json|code)?\s*"),
    starts=("to=functions.",),
    # the token that ends a call ends the reply as well
    envelope=Envelope(
        "<|start|>assistant<|channel|>commentary to=functions.",
        before="",
        between=" <|constrain|>json<|message|>",
        after="",
        controls=("<|constrain|>", "<|message|>"),
        names=r"[^\s{}<]{1,64}",
    ),
)
