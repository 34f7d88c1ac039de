"""The slash commands of a chat: what a command is, how a line is read, what may follow it.

The commands themselves are in the `*_commands` modules, one for each family; `command_table` puts them together.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from llm_local.chat.outcomes import Outcome
from llm_local.errors import InvalidRequest

if TYPE_CHECKING:
    from llm_local.chat.session import ChatSession

__all__ = ["Call", "Command", "CommandContext", "CommandTable", "Completes", "Question"]

Completes = Literal["none", "model", "path", "option", "command", "conversation", "tool"]
_MARK: Final = "/"


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What a command works on. `model_names` lists the models on this machine, for completion."""

    session: ChatSession
    table: CommandTable
    model_names: Callable[[], Sequence[str]] = field(default=lambda: ())


Run = Callable[[CommandContext, str], Outcome]


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table.

    - `name` and `aliases` are without the slash; `usage` is what follows the name, such as `[FILE]`.
    - `help` is one sentence. `completes` says what may be typed behind the name.
    - `run` gets what stands behind the name, without white space around it. It raises LocalLLMError where it cannot.
    - `source` names the plug-in that it comes from, or is empty.
    """

    name: str
    usage: str
    help: str
    run: Run
    aliases: tuple[str, ...] = ()
    completes: Completes = "none"
    source: str = ""

    @property
    def shown(self) -> str:
        """How people type it."""
        return f"{_MARK}{self.name} {self.usage}".rstrip()


@dataclass(frozen=True, slots=True)
class Question:
    """A line that is for the model."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A line that is a command."""

    command: Command
    arguments: str

    def run(self, context: CommandContext) -> Outcome:
        """Do it.

        Raises:
            LocalLLMError: it cannot be done; nothing has changed then, unless the message says so.
        """
        return self.command.run(context, self.arguments)


class CommandTable:
    """All commands of a chat. No two have a name or an alias in common."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self.commands = tuple(commands)
        self._by_name: dict[str, Command] = {}
        for command in self.commands:
            for name in (command.name, *command.aliases):
                if name in self._by_name:
                    raise ValueError(f"two commands are called {name}")
                self._by_name[name] = command

    @property
    def names(self) -> tuple[str, ...]:
        """All names and aliases, without the slash."""
        return tuple(self._by_name)

    def find(self, name: str) -> Command:
        """The command of that name, with or without the slash.

        Raises:
            InvalidRequest: there is none; the hint has the nearest.
        """
        word = name.removeprefix(_MARK).lower()
        if word not in self._by_name:
            near = difflib.get_close_matches(word, self._by_name, n=1, cutoff=0.5)
            meant = f"Did you mean {_MARK}{near[0]}? " if near else ""
            raise InvalidRequest(
                f"There is no command {_MARK}{word[:60]}.",
                f"{meant}{_MARK}help lists all; // sends a text that begins with a slash.",
                param="command",
            )
        return self._by_name[word]

    def parse(self, line: str) -> Question | Call:
        """What a line is: a command when it begins with a slash, else text for the model.

        `//` begins a text with one slash; white space in front makes any line a text.

        Raises:
            InvalidRequest: there is no such command.
        """
        if not line.startswith(_MARK):
            return Question(line)
        if line.startswith(_MARK * 2):
            return Question(line[1:])
        word, arguments = _split(line[1:])
        return Call(self.find(word), arguments)


def _split(line: str) -> tuple[str, str]:
    """The first word, and what follows it without white space around."""
    words = line.split(maxsplit=1)
    if not words or line[:1].isspace():
        return "", line.strip()
    return words[0], words[1].strip() if len(words) > 1 else ""
