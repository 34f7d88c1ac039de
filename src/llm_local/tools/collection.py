"""Tools from several sources put together: a name must mean one tool."""

from __future__ import annotations

from collections.abc import Iterable

from llm_local.errors import InvalidRequest
from llm_local.tools.tool import Tool

__all__ = ["collect_tools", "named_tool"]


def collect_tools(*sources: Iterable[Tool]) -> tuple[Tool, ...]:
    """All tools of all sources, in their order.

    Raises:
        InvalidRequest: two have the same name; the message says where they come from.
    """
    tools: dict[str, Tool] = {}
    for tool in (tool for source in sources for tool in source):
        other = tools.setdefault(tool.name, tool)
        if other is not tool:
            raise InvalidRequest(
                f"Two tools are called {tool.name!r}: one of {other.source}, one of {tool.source}.",
                "Every tool needs a name of its own.",
                param="tools",
            )
    return tuple(tools.values())


def named_tool(name: str, tools: Iterable[Tool]) -> Tool:
    """The tool of that name.

    Raises:
        InvalidRequest: there is none; the message lists those there are.
    """
    tools = tuple(tools)
    for tool in tools:
        if tool.name == name:
            return tool
    offered = (
        f"The tools are: {', '.join(tool.name for tool in tools)}." if tools else "There are none at all."
    )
    raise InvalidRequest(f"There is no tool {name!r}.", offered, param="tools")
