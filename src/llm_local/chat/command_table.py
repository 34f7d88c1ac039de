"""The table of all commands, for both REPLs and for the docs: the built-in ones, and those of plug-ins."""

from __future__ import annotations

from typing import Final

from llm_local.chat.basic_commands import BASIC_COMMANDS
from llm_local.chat.commands import Command, CommandTable
from llm_local.chat.file_commands import FILE_COMMANDS
from llm_local.chat.model_commands import MODEL_COMMANDS
from llm_local.chat.plugin_commands import plugin_commands
from llm_local.chat.setting_commands import SETTING_COMMANDS
from llm_local.chat.turn_commands import TURN_COMMANDS

__all__ = ["BUILT_IN", "command_table", "commands_markdown"]

BUILT_IN: Final[tuple[Command, ...]] = (
    *BASIC_COMMANDS,
    *TURN_COMMANDS,
    *SETTING_COMMANDS,
    *MODEL_COMMANDS,
    *FILE_COMMANDS,
)


def command_table() -> CommandTable:
    """All commands of this process.

    Raises:
        PluginFailed: a plug-in that PLUGINS names cannot be used.
    """
    taken = {name for command in BUILT_IN for name in (command.name, *command.aliases)}
    return CommandTable((*BUILT_IN, *plugin_commands(taken)))


def commands_markdown() -> str:
    """The built-in commands as a table in Markdown."""
    lines = ["| command | also | what it does |", "|---|---|---|"]
    for command in BUILT_IN:
        also = ", ".join(f"`/{name}`" for name in command.aliases)
        shown = command.shown.replace("|", "\\|")
        lines.append(f"| `{shown}` | {also} | {command.help} |")
    return "\n".join(lines) + "\n"
