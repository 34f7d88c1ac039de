"""What the store of conversations gives back: frozen values, never rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from llm_local.events import FinishReason, Timings, Usage
from llm_local.messages import Message

__all__ = ["LOCAL_OWNER", "Conversation", "ReplyFacts", "ReplyStatus", "SearchHit", "StoredMessage"]

LOCAL_OWNER: Final = "local"
"""Whose conversations are those of the terminal, and of a server without keys."""

ReplyStatus = Literal["complete", "interrupted"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its messages. Times are seconds since 1970, for people; order never depends on them.

    - `title`: what its owner called it, else the beginning of the first question; empty before that.
    - `model`: the model that answered last, or None.
    - `forked_from`: the id of the conversation it is a copy of; that one may be gone.
    """

    id: str
    owner: str
    title: str
    model: str | None
    created: float
    modified: float
    num_messages: int
    forked_from: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """What is known of a message that a model wrote. None is "not known", never zero."""

    model: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message at its place; the first is at 0. A reply that was broken off has the status `interrupted`."""

    position: int
    message: Message
    status: ReplyStatus = "complete"
    facts: ReplyFacts | None = None
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A message in which all words were found, or a title: then `role` is `title` and `position` 0.

    `snippet` is one line of text around the first word found.
    """

    conversation: Conversation
    position: int
    role: str
    snippet: str
