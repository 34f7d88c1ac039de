"""`llm-local plugins`: what is installed, what of it may be loaded, and what of that works."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_local.config import load_config
from llm_local.errors import ConfigError, PluginFailed
from llm_local.plugins import (
    COMMANDS,
    LOADERS,
    TOOL_FORMATS,
    TOOLS,
    Plugin,
    allow_plugins,
    find_plugins,
    is_allowed,
    load_plugin,
)
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tables import write_rows

__all__ = ["Listed", "add_flags", "run"]

_KINDS: Final[Mapping[str, str]] = {
    TOOLS: "tool",
    TOOL_FORMATS: "tool format",
    COMMANDS: "command",
    LOADERS: "loader",
}
_HEADER: Final = ("NAME", "KIND", "PACKAGE", "STATE")


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list. `state` is off, on or broken; `note` says what else there is to know."""

    plugin: Plugin
    state: str
    note: str = ""

    def to_object(self) -> dict[str, str]:
        """For programs."""
        return {
            "name": self.plugin.name,
            "group": self.plugin.group,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "state": self.state,
            "note": self.note,
        }


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument(
        "--check", action="store_true", help="also load those that are on, and say what is broken"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print the plug-ins: a table on a terminal, lines with tabs between in a pipe, or JSON.

    Imports none of them without --check.

    Raises:
        ConfigError: a setting cannot be used, or PLUGINS names what is not there.
        PluginFailed: with --check, one that is on is broken.
    """
    if args.check:
        answer = AnswerWriter.take_stdout()  # what plug-ins print, in whatever way, is no part of the list
    config = load_config()
    for warning in config.warnings:
        messages.note(warning)
    wrong: ConfigError | None = None
    try:
        allow_plugins(config.plugins)
    except ConfigError as error:
        wrong = error  # the list is what helps
    found = [_listed(plugin, check=args.check) for plugin in find_plugins()]
    if args.json:
        answer.write(json.dumps([one.to_object() for one in found], indent=2) + "\n")
    else:
        write_rows(answer, _HEADER, map(_shown, found), (list(one.to_object().values()) for one in found))
    if not found:
        messages.note("No plug-ins are installed.")
    elif any(one.state == "off" for one in found):
        messages.note("To turn one on, set PLUGINS to its name, several with commas between, or to `all`.")
    if wrong is not None:
        raise wrong
    broken = [one.plugin.name for one in found if one.state == "broken" and is_allowed(one.plugin)]
    if args.check and broken:
        raise PluginFailed(f"Broken: {', '.join(broken)}; see above.")


def _listed(plugin: Plugin, *, check: bool) -> Listed:
    fault = plugin.fault or _taken(plugin)
    if fault:
        return Listed(plugin, "broken", fault)
    if not is_allowed(plugin):
        return Listed(plugin, "off")
    if check:
        try:
            load_plugin(plugin, _check_of(plugin.group))
        except PluginFailed as error:
            return Listed(plugin, "broken", error.message.partition("cannot be used: ")[2])
    return Listed(plugin, "on")


def _taken(plugin: Plugin) -> str:
    if plugin.group != TOOL_FORMATS:
        return ""
    # Late: only who has such a plug-in needs the built-in ones.
    from llm_local.text.tool_formats.registry import FORMATS

    names = [one.name for one in FORMATS]
    return f"the name {plugin.name!r} is that of a built-in format" if plugin.name in names else ""


def _check_of(group: str) -> Callable[[Plugin, Any], Any]:
    # Late, all of them: the list itself needs none.
    if group == TOOLS:
        from llm_local.tools.plugin_tools import check_plugin as check_tool

        return check_tool
    if group == TOOL_FORMATS:
        from llm_local.text.tool_formats.registry import check_plugin as check_format

        return check_format
    if group == COMMANDS:
        from llm_local.chat.command_table import check_command

        return check_command
    from llm_local.loaders.plugged import check_plugin as check_loader

    return check_loader


def _shown(one: Listed) -> tuple[str, ...]:
    package = f"{one.plugin.distribution} {one.plugin.version}"
    return (
        one.plugin.name,
        _KINDS[one.plugin.group],
        package,
        f"{one.state}: {one.note}" if one.note else one.state,
    )
