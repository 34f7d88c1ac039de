"""What an MCP tool answered becomes text without losing anything in silence."""

from __future__ import annotations

from typing import Any

import pytest

from llm_local.tools.mcp_results import result_text


def text(*parts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": part} for part in parts]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"content": text("a", "b")}, "a\nb"),
        ({"content": []}, ""),
        ({}, ""),
        # structured content, and texts that say the same
        ({"content": text("5"), "structuredContent": {"result": 5}}, "5"),
        ({"content": text("hi"), "structuredContent": {"result": "hi"}}, "hi"),
        ({"content": text('{"a": 1}'), "structuredContent": {"a": 1}}, '{"a": 1}'),
        ({"content": text("1", "2"), "structuredContent": {"result": [1, 2]}}, "1\n2"),
        # or not
        ({"content": [], "structuredContent": {"a": "é"}}, '{"a": "é"}'),
        ({"content": [], "structuredContent": {"result": []}}, '{"result": []}'),
        ({"content": text("done"), "structuredContent": {"a": 1}}, 'done\n{"a": 1}'),
        # what is no text
        ({"content": [{"type": "image", "data": "eHg="}]}, "[image, 3 bytes: not shown]"),
        (
            {"content": [{"type": "resource_link", "uri": "file:///x", "name": "x"}]},
            "[resource file:///x: not fetched]",
        ),
        ({"content": [{"type": "hologram"}]}, "[hologram: not shown]"),
    ],
)
def test_nothing_is_lost_and_nothing_told_twice(result: dict[str, Any], told: str) -> None:
    assert result_text(result) == told
