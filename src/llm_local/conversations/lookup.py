"""Where a conversation is: by its owner and an id, or the beginning of one."""

from __future__ import annotations

import re
import sqlite3
from typing import Final

from llm_local.conversations import statements as sql
from llm_local.conversations.records import Conversation
from llm_local.conversations.rows import Place, to_conversation
from llm_local.errors import ConversationNotFound, InvalidRequest

__all__ = ["check_position", "find", "view"]

_ID: Final = re.compile("[0-9a-f]{4,32}")


def find(connection: sqlite3.Connection, owner: str, conversation_id: str) -> Place:
    """The conversation of an owner.

    Raises:
        ConversationNotFound: the owner has none of that id; whether another has is not said.
        InvalidRequest: the beginning of an id is of several.
    """
    rows: list[tuple[int, str]] = []
    if _ID.fullmatch(conversation_id):
        rows = connection.execute(sql.FIND, {"owner": owner, "id": conversation_id}).fetchall()
    if not rows:
        raise ConversationNotFound(
            f"There is no conversation {conversation_id[:64]!r}.",
            "`llm-local history` lists those there are.",
        )
    if len(rows) > 1:
        raise InvalidRequest(
            f"Several conversations have an id that begins with {conversation_id!r}.",
            "Give more of the id.",
            param="conversation_id",
        )
    return Place(rows[0][0], owner)


def view(connection: sqlite3.Connection, place: Place) -> Conversation:
    """What there is to say about a conversation."""
    return to_conversation(connection.execute(sql.VIEW, place.bound()).fetchone())


def check_position(
    connection: sqlite3.Connection, place: Place, position: int, param: str = "position"
) -> None:
    """Raise InvalidRequest, naming `param`, for what is neither a position of a message nor the end."""
    count = connection.execute(sql.COUNT_MESSAGES, place.bound()).fetchone()[0]
    if not 0 <= position <= count:
        raise InvalidRequest(
            f"There is no position {position} in a conversation of {count} messages.",
            f"Use one from 0 to {count}.",
            param=param,
        )
