"""What a tool-call format is: where a call begins, what reads it, and how one is forced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from llm_local.messages import ToolDefinition
from llm_local.text.tool_formats.rules import Rules

__all__ = [
    "ArgumentsGrammar",
    "ArgumentsPart",
    "Body",
    "BodyState",
    "CallMade",
    "CallNamed",
    "Envelope",
    "Part",
    "ToolFormat",
]

BodyState = Literal["open", "done", "failed"]


@dataclass(frozen=True, slots=True)
class CallNamed:
    """A call to this tool has begun."""

    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsPart:
    """The next piece of the call's arguments as JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallMade:
    """A call is complete."""

    name: str
    arguments: Mapping[str, Any]


Part = CallNamed | ArgumentsPart | CallMade


class Body(Protocol):
    """Reads what follows a start marker, in pieces of any size; what it says depends on the whole text only."""

    state: BodyState

    def feed(self, text: str) -> tuple[int, list[Part]]:
        """How many characters belong to the body, and what they say.

        Fewer than all behind a call, which is the last thing said, and where the body ends in `text`, well or not:
        `state` tells which, and the rest is for others.
        """

    def finish(self) -> list[Part]:
        """The reply is over: what can still be said. Leaves `state` "done" or "failed"."""


ArgumentsGrammar = Callable[[ToolDefinition, Rules], str]
"""The expression for the arguments that a tool's schema allows; what it cannot say it refuses with InvalidRequest."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """How forced calls are spelled: `opens`, then `before` NAME `between` ARGUMENTS `after` of each, then `closes`.

    - `opens` is written for the model; the rest is a grammar that the model fills in.
    - Several calls have `separator` between; None: only one can be forced at a time.
    - `controls` are strings in all of these that are written as one token, where the model has such a token.
    - `names`: a regex of the names that can be written as they are; empty where a name is part of a JSON text.
    - `arguments`: None where they are one JSON object.
    """

    opens: str
    before: str = '{"name": "'
    between: str = '", "arguments": '
    after: str = "}"
    separator: str | None = None
    closes: str = ""
    controls: tuple[str, ...] = ()
    names: str = ""
    arguments: ArgumentsGrammar | None = None


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One way of writing tool calls.

    - `starts`: any of them opens a call, wherever it comes; `bare_starts` only where nothing but other calls came
      before, and they belong to the call's body.
    - `make_body` makes the reader of one body, given the names of the tools that may be called.
    - `ends` may follow a body and are no text; `inside` are further strings that must not be lost as special tokens.
    - `fits` says whether a chat template's source is of this format.
    - `envelope`: None when a call cannot be forced.
    """

    name: str
    fits: Callable[[str], bool]
    make_body: Callable[[Sequence[ToolDefinition]], Body]
    starts: tuple[str, ...]
    ends: tuple[str, ...] = ()
    bare_starts: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    envelope: Envelope | None = None

    @property
    def strings(self) -> tuple[str, ...]:
        """All that must reach the reader as text, special tokens too."""
        return (*self.starts, *self.ends, *self.inside)


MAX_DEPTH: Final = 128
