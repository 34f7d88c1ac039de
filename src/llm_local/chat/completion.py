"""What may follow in a line that is being typed: commands, and behind a command what it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from llm_local.chat.commands import Command, CommandContext, Completes
from llm_local.chat.sampling_choices import OPTION_NAMES, option_help
from llm_local.errors import LocalLLMError
from llm_local.options import Think

__all__ = ["Completion", "complete"]

_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Completion:
    """One way to go on: `text` takes the place of the last `replaces` characters of the line."""

    text: str
    replaces: int
    help: str = ""


def complete(line: str, context: CommandContext) -> list[Completion]:
    """The candidates for a line up to the cursor, the best first; none for a line that is for the model."""
    if not line.startswith("/") or line.startswith("//") or "\n" in line:
        return []
    word, blank, typed = line[1:].partition(" ")
    if not blank:
        return [
            Completion(f"/{name}", len(line), command.help)
            for command in context.table.commands
            for name in (command.name, *command.aliases)
            if name.startswith(word.lower())
        ]
    try:
        command = context.table.find(word)
    except LocalLLMError:
        return []
    typed = typed.lstrip()
    return _BY_KIND[command.completes](typed, context, command)[:_MAX]


Completer = Callable[[str, CommandContext, Command], list[Completion]]


def _starting(typed: str, names: Iterable[tuple[str, str]]) -> list[Completion]:
    found = [
        Completion(name, len(typed), help_) for name, help_ in names if name.lower().startswith(typed.lower())
    ]
    return [] if [one.text for one in found] == [typed] else found


def _words(typed: str, context: CommandContext, command: Command) -> list[Completion]:
    """The words of the usage, such as those of `[info|parameters]`."""
    words = command.usage.strip("[]").split("|")
    return _starting(typed, [(word, "") for word in words if word.isalpha() and word.islower()])


def _models(typed: str, context: CommandContext, command: Command) -> list[Completion]:
    last = typed.rpartition(" ")[2]
    try:
        return _starting(last, [(name, "") for name in context.model_names()])
    except (LocalLLMError, OSError):
        return []


def _options(typed: str, context: CommandContext, command: Command) -> list[Completion]:
    name, blank, value = typed.partition(" ")
    if not blank:
        return _starting(name, [(one, option_help(one)) for one in OPTION_NAMES])
    if name == "think":
        return _starting(value, [(one, "") for one in get_args(Think)])
    if name == "format":
        return [*_starting(value, [("json", ""), ("off", "")]), *_paths(value, context, command)]
    return _starting(value, [("default", "")])


def _commands(typed: str, context: CommandContext, command: Command) -> list[Completion]:
    return _starting(typed, [(one.name, one.help) for one in context.table.commands])


def _tools(typed: str, context: CommandContext, command: Command) -> list[Completion]:
    offers = () if context.session.tools is None else context.session.tools.offers
    return _starting(typed, [("on", ""), ("off", ""), *((one.name, one.description) for one in offers)])


def _conversations(typed: str, context: CommandContext, command: Command) -> list[Completion]:
    archive = context.session.archive
    found: list[Completion] = []
    if archive is not None:
        try:
            found = _starting(typed, [(one.id[:8], one.title) for one in archive.list(limit=20)])
        except LocalLLMError:
            found = []
    return found + _paths(typed, context, command)


def _paths(typed: str, context: CommandContext, command: Command) -> list[Completion]:
    """Files and folders; a name of a folder ends in a slash. Hidden ones only when a dot is typed."""
    folder, _, start = typed.rpartition("/")
    where = os.path.expanduser(f"{folder}/" if folder or typed.startswith("/") else ".")
    try:
        with os.scandir(where) as listed:
            entries = sorted((one.name, one.is_dir()) for one in listed)
    except (OSError, ValueError):
        return []
    return [
        Completion(name + ("/" if is_folder else ""), len(start))
        for name, is_folder in entries
        if name.startswith(start) and (start.startswith(".") or not name.startswith("."))
    ]


_BY_KIND: Final[Mapping[Completes, Completer]] = {
    "none": _words,
    "model": _models,
    "path": _paths,
    "option": _options,
    "command": _commands,
    "conversation": _conversations,
    "tool": _tools,
}
