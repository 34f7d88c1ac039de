"""Commands that plug-ins offer: each entry point of the group `llm_local.commands` names a Command or a function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Final, get_args

from llm_local.chat.commands import Command, CommandContext, Completes, Run
from llm_local.chat.outcomes import Outcome, Text
from llm_local.errors import LocalLLMError, PluginFailed
from llm_local.plugins import COMMANDS, Plugin, load_plugins

__all__ = ["check_plugin_command", "plugin_commands"]

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def plugin_commands(taken: Collection[str]) -> list[Command]:
    """The commands of the plug-ins that PLUGINS allows. Names in `taken` are not theirs to take.

    Raises:
        PluginFailed: a plug-in that PLUGINS names cannot be used.
    """
    used = set(taken)

    def check(plugin: Plugin, value: Any) -> Command:
        command = check_plugin_command(plugin, value, used)
        used.update((command.name, *command.aliases))
        return command

    return [command for _, command in load_plugins(COMMANDS, check)]


def check_plugin_command(plugin: Plugin, value: Any, taken: Collection[str]) -> Command:
    """What a plug-in offers as a command: a Command, or a function `(context, arguments)`.

    Raises:
        ValueError: it is neither, or its name or help cannot be used, or a name is in `taken`.
    """
    if isinstance(value, Command):
        command = value
    elif inspect.isroutine(value):
        described = (inspect.getdoc(value) or "").strip().partition("\n")[0]
        command = Command(plugin.name, "[TEXT]", described, value)
    else:
        raise ValueError(f"it is neither a Command nor a function, but a {type(value).__name__}")
    names = (command.name, *command.aliases)
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a command: small letters, digits, - and _, at most 32")
        if name in taken or names.count(name) > 1:
            raise ValueError(f"there is a command /{name} already")
    if not isinstance(command.help, str) or not command.help.strip():
        raise ValueError("it has no help: the first line of the docstring, or `help` of the Command")
    if command.completes not in get_args(Completes):
        raise ValueError(
            f"completes is {command.completes!r}, but must be one of {', '.join(get_args(Completes))}"
        )
    if not callable(command.run):
        raise ValueError("its run cannot be called")
    try:
        inspect.signature(command.run).bind(None, "")
    except TypeError:
        raise ValueError("it cannot be called with (context, arguments)") from None
    return replace(command, run=_guarded(plugin, command.run), source=str(plugin))


def _guarded(plugin: Plugin, run: Callable[[CommandContext, str], Any]) -> Run:
    """The command's function, whose mistakes are named; a text that it gives back is Markdown."""

    def guarded(context: CommandContext, arguments: str) -> Outcome:
        try:
            found = run(context, arguments)
        except LocalLLMError:
            raise
        except Exception as error:
            raise PluginFailed(
                f"The {plugin} failed: {type(error).__name__}: {error}", "Tell its authors."
            ) from error
        if isinstance(found, str):
            return Text(found)
        if not isinstance(found, get_args(Outcome)):
            raise PluginFailed(
                f"The {plugin} gave a {type(found).__name__}, which is no outcome of a command."
            )
        return found

    return guarded
