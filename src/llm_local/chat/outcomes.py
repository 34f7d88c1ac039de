"""What a slash command comes to: frozen values that both REPLs draw, each in its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_local.chat.shown import Shown

if TYPE_CHECKING:
    from llm_local.chat.compare import Comparison
    from llm_local.chat.reply import ChatReply

__all__ = [
    "Ask",
    "Cleared",
    "Compared",
    "Copied",
    "Edit",
    "Leave",
    "Outcome",
    "Reply",
    "Said",
    "Shown",
    "Text",
]


@dataclass(frozen=True, slots=True)
class Said:
    """Lines for people. None of them holds a line end of its own."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A longer text. `is_markdown` is False for one that is to be shown exactly as it is, such as a prompt."""

    text: str
    is_markdown: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the model begins: iterate it, and show it as any other. `lines` come before it."""

    reply: ChatReply
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """Several answers to one prompt begin: iterate `comparison`, then show its `table()`."""

    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Edit:
    """Let the person change `text`, then go on with what `submit` gives for the result.

    A REPL that cannot put text into its input line shows `lines` instead.
    """

    text: str
    submit: Callable[[str], Outcome]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to answer with yes or no; without a person the answer is no."""

    question: str
    on_yes: Callable[[], Outcome]
    on_no: Said = Said(("Nothing was changed.",))


@dataclass(frozen=True, slots=True)
class Copied:
    """Text for the clipboard. The terminal takes it, or the REPL says that it cannot. `what` names it for people."""

    text: str
    what: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """The screen is to be cleared; `lines` come after that."""

    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leave:
    """The person wants to go."""


Outcome = Said | Shown | Text | Reply | Compared | Edit | Ask | Copied | Cleared | Leave
