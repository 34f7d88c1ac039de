"""The messages of a conversation as the session keeps them, and what the model sees of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llm_local.conversations.records import ReplyFacts, ReplyStatus
from llm_local.messages import Message

__all__ = ["MAX_TURNS", "Entry", "Seen", "is_unanswered", "last_question", "num_turns", "seen"]

MAX_TURNS: Final = 50
"""So many turns the model sees at most; the conversation itself may be longer."""
_AT_ONCE: Final = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """One message; of an assistant's, whether it is whole, and what is known of it."""

    message: Message
    status: ReplyStatus = "complete"
    facts: ReplyFacts | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model is to see, and how many messages of older turns it is not."""

    messages: tuple[Message, ...]
    num_left_out: int


def last_question(entries: Sequence[Entry]) -> int | None:
    """Where the last message of the user stands, or None."""
    return next((at for at in reversed(range(len(entries))) if entries[at].message.role == "user"), None)


def num_turns(entries: Sequence[Entry]) -> int:
    """Messages of the user."""
    return sum(entry.message.role == "user" for entry in entries)


def is_unanswered(entry: Entry) -> bool:
    """True of an answer that was stopped before its first word."""
    message = entry.message
    return (
        message.role == "assistant"
        and entry.status == "interrupted"
        and not (message.content or message.reasoning or message.tool_calls)
    )


def seen(entries: Sequence[Entry], max_turns: int = MAX_TURNS) -> Seen:
    """The system prompt and the last turns, without earlier questions that nothing was answered to.

    A turn is a message of the user and all that answers it. Of too many the oldest go ten at a time: a prompt that
    begins otherwise at every turn would be read anew at every turn.
    """
    head: list[Message] = []
    turns: list[list[Entry]] = []
    for entry in entries:
        if entry.message.role == "user" or (entry.message.role != "system" and not turns):
            turns.append([])
        if turns:
            turns[-1].append(entry)
        else:
            head.append(entry.message)
    answered = [turn for turn in turns[:-1] if not _is_open(turn[-1])] + turns[-1:]
    too_many = max(0, len(answered) - max_turns)
    num_gone = min(-(-too_many // _AT_ONCE) * _AT_ONCE, len(answered) - 1) if too_many else 0
    kept, left_out = answered[num_gone:], sum(len(turn) for turn in answered[:num_gone])
    return Seen((*head, *(entry.message for turn in kept for entry in turn)), left_out)


def _is_open(last: Entry) -> bool:
    """Whether a turn that ends so has no answer: it was stopped at once, or the process ended."""
    return last.message.role == "user" or is_unanswered(last)
