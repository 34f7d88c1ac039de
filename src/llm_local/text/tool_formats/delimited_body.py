"""Calls between two markers, in whatever notation a model has: read as a whole when the closing one has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_local.messages import ToolDefinition
from llm_local.text.markers import MarkerFinder
from llm_local.text.tool_formats.format import Body, BodyState, CallMade, CallNamed, Part

__all__ = ["Parser", "delimited_body"]

Parser = Callable[[str, Sequence[ToolDefinition]], tuple[str, Mapping[str, Any]] | None]


def delimited_body(end: str, parse: Parser) -> Callable[[Sequence[ToolDefinition]], Body]:
    """Makes bodies that end in `end`. `parse` reads one, and returns None when it is no call."""
    return lambda tools: _DelimitedBody(end, parse, tools)


class _DelimitedBody:
    """Satisfies `Body`. A reply may stop without the closing marker: what is complete without it counts."""

    def __init__(self, end: str, parse: Parser, tools: Sequence[ToolDefinition]) -> None:
        self.state: BodyState = "open"
        self._finder = MarkerFinder((end,))
        self._parse = parse
        self._tools = tools
        self._text: list[str] = []

    def feed(self, text: str) -> tuple[int, list[Part]]:
        before, marker, rest = self._finder.feed(text)
        self._text.append(before)
        if marker is None:
            return len(text), []
        return len(text) - len(rest), self._close()

    def finish(self) -> list[Part]:
        self._text.append(self._finder.finish())
        return self._close()

    def _close(self) -> list[Part]:
        found = self._parse("".join(self._text), self._tools)
        if found is None or all(found[0] != tool.name for tool in self._tools):
            self.state = "failed"
            return []
        self.state = "done"
        return [CallNamed(found[0]), CallMade(*found)]
