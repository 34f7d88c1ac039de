"""Mistral: `[TOOL_CALLS]` before a JSON list, or, since tokenizer version 11, before `name[ARGS]{...}` of each call."""

from __future__ import annotations

from collections.abc import Sequence

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.format import Body, BodyState, Envelope, Part, ToolFormat
from llm_local.text.tool_formats.json_body import json_body

__all__ = ["LISTS", "NAMED"]

_START = "[TOOL_CALLS]"
_list_body = json_body()
_named_body = json_body(
    head=r"\s*(?P<name>[^\s\[\]{}]{1,64})\s*(?:\[CALL_ID\][^\s\[\]{}]{0,64})?(?:\[ARGS\])?\s*"
)


class _EitherBody:
    """A list or an object is old, anything else new: models of the change write both."""

    def __init__(self, tools: Sequence[ToolDefinition]) -> None:
        self.state: BodyState = "open"
        self._tools = tools
        self._body: Body | None = None

    def feed(self, text: str) -> tuple[int, list[Part]]:
        if self._body is None:
            bare = text.lstrip()
            if not bare:
                return len(text), []
            self._body = (_list_body if bare[0] in "[{" else _named_body)(self._tools)
        taken, parts = self._body.feed(text)
        self.state = self._body.state
        return taken, parts

    def finish(self) -> list[Part]:
        parts = [] if self._body is None else self._body.finish()
        self.state = "failed" if self._body is None else self._body.state
        return parts


LISTS = ToolFormat(
    name="mistral",
    fits=lambda source: _START in source and "[ARGS]" not in source,
    make_body=_EitherBody,
    starts=(_START,),
    inside=("[ARGS]", "[CALL_ID]"),
    envelope=Envelope(f"{_START}[", separator=", ", closes="]"),
)
NAMED = ToolFormat(
    name="mistral-named",
    fits=lambda source: _START in source,
    make_body=_EitherBody,
    starts=(_START,),
    inside=("[ARGS]", "[CALL_ID]"),
    envelope=Envelope(f"{_START}[", separator=", ", closes="]"),  # its grammar needs no token in the middle
)
