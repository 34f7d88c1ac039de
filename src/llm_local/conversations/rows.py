"""One message in the database: written with its words in the index, and read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_local.conversations import statements as sql
from llm_local.conversations.fields import facts_fields, facts_from, message_fields, message_from
from llm_local.conversations.records import Conversation, ReplyFacts, ReplyStatus, StoredMessage
from llm_local.errors import ConversationNotFound, DatabaseUnusable, InvalidRequest

__all__ = [
    "Place",
    "add_message",
    "message_at",
    "read_messages",
    "rewrite_message",
    "row_of",
    "set_title",
    "title_from",
    "to_conversation",
    "touch",
]

_TITLE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Place:
    """A conversation as statements find it: its number, and whose it is."""

    seq: int
    owner: str

    def bound(self, **values: Any) -> dict[str, Any]:
        """The values that a statement is bound with."""
        return {"seq": self.seq, "owner": self.owner, **values}


def row_of(stored: StoredMessage) -> dict[str, Any]:
    """What is written for a message.

    Raises:
        InvalidRequest: a part of it cannot be kept.
    """
    details = message_fields(stored.message)
    role, content = details.pop("role"), details.pop("content")
    return {
        "role": role,
        "content": content,
        "details": json.dumps(details) if details else None,
        "status": stored.status,
        "facts": json.dumps(facts_fields(stored.facts)) if stored.facts else None,
        "created": stored.created,
    }


def add_message(connection: sqlite3.Connection, place: Place, row: Mapping[str, Any]) -> int:
    """Add a row at the end of a conversation; its number.

    Raises:
        ConversationNotFound: the conversation is gone.
    """
    cursor = connection.execute(sql.ADD_MESSAGE, place.bound(**row))
    if cursor.rowcount != 1 or cursor.lastrowid is None:
        raise ConversationNotFound("The conversation is not there any more.", "It was deleted meanwhile.")
    number = cursor.lastrowid
    connection.execute(sql.INDEX_MESSAGE, place.bound(message=number, text=_searchable(row["content"])))
    return number


def rewrite_message(
    connection: sqlite3.Connection, place: Place, number: int, row: Mapping[str, Any]
) -> bool:
    """Put other contents into a row; False when it is gone."""
    if connection.execute(sql.REWRITE_MESSAGE, place.bound(message=number, **row)).rowcount != 1:
        return False
    connection.execute(sql.UNINDEX_MESSAGE, place.bound(message=number))
    connection.execute(sql.INDEX_MESSAGE, place.bound(message=number, text=_searchable(row["content"])))
    return True


def touch(connection: sqlite3.Connection, place: Place, now: float, model: str | None = None) -> None:
    """Make a conversation the one that was used last, and `model` the one that answered last."""
    connection.execute(sql.TOUCH, place.bound(now=now))
    if model is not None:
        connection.execute(sql.SET_MODEL, place.bound(model=model))


def set_title(connection: sqlite3.Connection, place: Place, title: str) -> None:
    """Give a conversation a title."""
    connection.execute(sql.SET_TITLE, place.bound(title=title))
    connection.execute(sql.UNINDEX_TITLE, place.bound())
    connection.execute(sql.INDEX_TITLE, place.bound(text=_searchable(title)))


def message_at(
    connection: sqlite3.Connection, place: Place, number: int, stored: StoredMessage
) -> StoredMessage:
    """`stored` with the position that the row of that number has."""
    position = connection.execute(sql.POSITION, place.bound(message=number)).fetchone()[0]
    return StoredMessage(position, stored.message, stored.status, stored.facts, stored.created)


def read_messages(connection: sqlite3.Connection, place: Place, up_to: int = -1) -> tuple[StoredMessage, ...]:
    """The first `up_to` messages of a conversation, or all.

    Raises:
        DatabaseUnusable: a row says what no message can say.
    """
    rows = connection.execute(sql.READ_MESSAGES, place.bound(up_to=up_to)).fetchall()
    return tuple(_stored(position, row) for position, row in enumerate(rows))


def to_conversation(row: tuple[Any, ...]) -> Conversation:
    """The value that a row of `VIEW` or `LIST` stands for."""
    return Conversation(*row[1:])


def title_from(question: str) -> str:
    """What a conversation is called by itself: the beginning of a question, in one line."""
    line = " ".join(question[: 4 * _TITLE_CHARS].split())
    return line if len(line) <= _TITLE_CHARS else line[: _TITLE_CHARS - 1].rstrip() + "…"


def _stored(position: int, row: tuple[str, str, str | None, ReplyStatus, str | None, float]) -> StoredMessage:
    role, content, details, status, facts, created = row
    try:
        message = message_from({"role": role, "content": content, **json.loads(details or "{}")}, "message")
        known: ReplyFacts | None = facts_from(json.loads(facts), "facts") if facts else None
    except (InvalidRequest, ValueError, RecursionError) as error:
        raise DatabaseUnusable(f"Message {position} of the conversation cannot be read: {error}") from error
    return StoredMessage(position, message, status, known, created)


def _searchable(text: str) -> str:
    return text.replace("\0", " ")  # the index reads no further than that
