"""The table of all commands, for both REPLs and for the docs: the built-in ones, and those of plug-ins."""

from __future__ import annotations

from typing import Any, Final

from llm_local.chat.basic_commands import BASIC_COMMANDS
from llm_local.chat.commands import Command, CommandTable
from llm_local.chat.file_commands import FILE_COMMANDS
from llm_local.chat.model_commands import MODEL_COMMANDS
from llm_local.chat.plugin_commands import check_plugin_command, plugin_commands
from llm_local.chat.setting_commands import SETTING_COMMANDS
from llm_local.chat.turn_commands import TURN_COMMANDS
from llm_local.plugins import Plugin

__all__ = ["BUILT_IN", "check_command", "command_table", "commands_markdown", "with_commands"]

BUILT_IN: Final[tuple[Command, ...]] = (
    *BASIC_COMMANDS,
    *TURN_COMMANDS,
    *SETTING_COMMANDS,
    *MODEL_COMMANDS,
    *FILE_COMMANDS,
)

MARKS: Final = ("<!-- commands, written by scripts/generate_docs.py -->", "<!-- end of commands -->")
_TAKEN: Final = frozenset(name for command in BUILT_IN for name in (command.name, *command.aliases))


def command_table() -> CommandTable:
    """All commands of this process.

    Raises:
        PluginFailed: a plug-in that PLUGINS names cannot be used.
    """
    return CommandTable((*BUILT_IN, *plugin_commands(_TAKEN)))


def check_command(plugin: Plugin, value: Any) -> Command:
    """What a plug-in offers as a command.

    Raises:
        ValueError: it is none, or its name is that of a built-in one.
    """
    return check_plugin_command(plugin, value, _TAKEN)


def with_commands(page: str) -> str:
    """A page of the docs with the table of commands between its two marks.

    Raises:
        ValueError: it does not have both marks.
    """
    begin, end = MARKS
    before, begins, rest = page.partition(begin)
    _, ends, after = rest.partition(end)
    if not (begins and ends):
        raise ValueError(f"the page does not have the marks {begin} and {end}")
    return f"{before}{begin}\n{commands_markdown()}{end}{after}"


def commands_markdown() -> str:
    """The built-in commands as a table in Markdown."""
    lines = ["| command | also | what it does |", "|---|---|---|"]
    for command in BUILT_IN:
        also = ", ".join(f"`/{name}`" for name in command.aliases)
        shown = command.shown.replace("|", "\\|")
        lines.append(f"| `{shown}` | {also} | {command.help} |")
    return "\n".join(lines) + "\n"
