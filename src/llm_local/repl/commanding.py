"""The commands of a chat and what completes them, as the loop uses them; and the one that is about what is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from llm_local.chat.command_table import command_table
from llm_local.chat.commands import Call, Command, CommandContext, CommandTable, Question
from llm_local.chat.completion import complete
from llm_local.chat.outcomes import Outcome, Said
from llm_local.chat.session import ChatSession
from llm_local.errors import InvalidRequest
from llm_local.store.library import list_models
from llm_local.terminal.chat_view import Candidate

__all__ = ["Shows", "chat_commands", "command_context", "completer", "parse"]

_WORDS: Final = {"on": True, "off": False}


@dataclass(slots=True)
class Shows:
    """What a chat shows beside the answers, as it is now."""

    verbose: bool = False

    def set_verbose(self, context: CommandContext, arguments: str) -> Outcome:
        """`/verbose [on|off]`; without a word the other way."""
        word = arguments.strip().lower()
        if word and word not in _WORDS:
            raise InvalidRequest(f"verbose is {word[:60]!r}, but must be on or off.", param="verbose")
        self.verbose = _WORDS.get(word, not self.verbose)
        return Said((f"verbose: {'on' if self.verbose else 'off'}",))


def chat_commands(shows: Shows) -> CommandTable:
    """All commands of this process.

    Raises:
        PluginFailed: a plug-in that PLUGINS names cannot be used.
    """
    verbose = Command(
        "verbose",
        "[on|off]",
        "Show speed, token counts and times after each answer, or no longer.",
        shows.set_verbose,
    )
    return CommandTable((*command_table().commands, verbose))


def command_context(session: ChatSession, table: CommandTable) -> CommandContext:
    """What commands work on."""
    return CommandContext(session, table, _model_names)


def parse(table: CommandTable, text: str) -> Question | Call:
    """What an input is. `/set verbose on` means `/verbose on`.

    Raises:
        InvalidRequest: there is no such command.
    """
    said = table.parse(text)
    if isinstance(said, Call) and said.command.name == "set":
        name, _, value = said.arguments.partition(" ")
        if name.lower() == "verbose":
            return Call(table.find("verbose"), value)
    return said


def completer(context: CommandContext) -> Callable[[str], Sequence[Candidate]]:
    """What gives the candidates for a line up to the cursor."""
    return lambda line: [Candidate(one.text, one.replaces, one.help) for one in complete(line, context)]


def _model_names() -> list[str]:
    return [model.name for model in list_models() if model.state == "complete"]
