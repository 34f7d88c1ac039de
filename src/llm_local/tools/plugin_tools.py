"""Tools that plug-ins offer: each entry point of the group `llm_local.tools` names a Tool or a plain function."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Collection
from typing import Any

from llm_local.plugins import TOOLS, Plugin, load_plugins
from llm_local.tools.names import allowed_name
from llm_local.tools.tool import Tool

__all__ = ["check_plugin", "plugin_tools"]


def plugin_tools(names: Collection[str] | None = None) -> tuple[Tool, ...]:
    """The tools of the plug-ins that PLUGINS allows, or of those among them with these names.

    Raises:
        PluginFailed: a plug-in that PLUGINS names cannot be used.
    """
    found = load_plugins(TOOLS, check_plugin)
    return tuple(tool for plugin, tool in found if names is None or plugin.name in names)


def check_plugin(plugin: Plugin, value: Any) -> Tool:
    """What a plug-in offers as a tool.

    Raises:
        ValueError, InvalidRequest: it is none, or a function that cannot be described to a model.
    """
    source = f"plug-in:{plugin.name}"
    if isinstance(value, Tool):
        if allowed_name(value.name) != value.name:
            raise ValueError(f"no tool format carries the name {value.name!r}")
        return dataclasses.replace(value, source=source)
    if inspect.isfunction(value):
        # Late: it takes a while, and only functions need it.
        from llm_local.tools.functions import make_tool

        return make_tool(value, name=allowed_name(plugin.name), source=source)
    raise ValueError(f"it is neither a Tool nor a function, but a {type(value).__name__}")
