"""The store of conversations: every method takes the owner first, and sees only what is that owner's.

A conversation of another owner is answered like one that does not exist. Every change is on the disk when its method
returns. All methods may be called from any thread, and several processes may have one database open.

Raises (from every method):
    ConversationNotFound: the owner has no conversation of that id.
    InvalidRequest: a value cannot be kept, or is out of its bounds.
    StorageError: the disk refuses (full, read-only, no permission); nothing was changed.
    Busy: another process held the database for too long; nothing was changed.
    DatabaseUnusable: the file was damaged and was moved aside just now; the next call works on the last backup.
"""

from __future__ import annotations

import atexit
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from llm_local.conversations import statements as sql
from llm_local.conversations.database import Database
from llm_local.conversations.drafts import ReplyDraft
from llm_local.conversations.fields import checked_title
from llm_local.conversations.lookup import check_position, find, view
from llm_local.conversations.records import Conversation, ReplyFacts, SearchHit, StoredMessage
from llm_local.conversations.rows import (
    Place,
    add_message,
    message_at,
    read_messages,
    row_of,
    set_title,
    title_from,
    to_conversation,
    touch,
)
from llm_local.conversations.searching import Query, read_query, snippet
from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.home import data_home
from llm_local.messages import Message, check_text

__all__ = ["ConversationStore", "ReplyDraft", "conversations_path"]

_MAX_LISTED: Final = 1000
_NO_LIMIT: Final = 2**63 - 1


def conversations_path() -> Path:
    """Where conversations are kept unless a caller says otherwise; not created."""
    return data_home() / "conversations" / "conversations.db"


class ConversationStore:
    """All conversations in one database. `notices`: what was found and mended on opening, for people."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Use `open`."""
        self._database = database
        self._clock = clock
        atexit.register(database.close)

    @classmethod
    def open(cls, path: Path | None = None, *, clock: Callable[[], float] = time.time) -> ConversationStore:
        """Open the store at `path`, or the user's own; it is made where there is none."""
        return cls(Database(conversations_path() if path is None else path), clock)

    @property
    def path(self) -> Path:
        """Where the database is."""
        return self._database.path

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for people: damage that was found and what was done, a backup that could not be made."""
        return tuple(self._database.notices)

    def close(self) -> None:
        """Let go of the files; a second time does nothing."""
        self._database.close()
        atexit.unregister(self._database.close)

    def create(
        self,
        owner: str,
        *,
        title: str = "",
        model: str | None = None,
        messages: Sequence[Message | StoredMessage] = (),
    ) -> Conversation:
        """Begin a conversation, perhaps with messages; of stored ones status, facts and time are kept."""
        title = checked_title(title)
        rows = [self._row(message) for message in messages]
        with self._database.writing() as connection:
            place = self._add(connection, owner, title=title, model=model, forked_from=None)
            self._append(connection, place, rows)
            return view(connection, place)

    def get(self, owner: str, conversation_id: str) -> Conversation:
        """One conversation, by its id or the beginning of it: 4 digits at least, and no other's."""
        with self._database.reading() as connection:
            return view(connection, find(connection, owner, conversation_id))

    def messages(self, owner: str, conversation_id: str) -> tuple[StoredMessage, ...]:
        """All messages, in order."""
        with self._database.reading() as connection:
            return read_messages(connection, find(connection, owner, conversation_id))

    def append(
        self, owner: str, conversation_id: str, message: Message, *, facts: ReplyFacts | None = None
    ) -> StoredMessage:
        """Add a message at the end."""
        stored = StoredMessage(0, message, facts=facts, created=self._clock())
        row = row_of(stored)
        with self._database.writing() as connection:
            place = find(connection, owner, conversation_id)
            number = self._append(connection, place, [row])
            touch(connection, place, self._clock(), facts.model if facts else None)
            return message_at(connection, place, number, stored)

    def begin_reply(
        self, owner: str, conversation_id: str, *, model: str | None, at: int | None = None
    ) -> ReplyDraft:
        """Begin a reply at the end, or one that replaces what is there from position `at` on once it is settled."""
        with self._database.reading() as connection:
            place = find(connection, owner, conversation_id)
            replaced = None
            if at is not None:
                check_position(connection, place, at)
                last = connection.execute(sql.LAST_MESSAGE, place.bound()).fetchone()[0]
                replaced = (at, last)
        return ReplyDraft(self._database, place, model=model, replaced=replaced, clock=self._clock)

    def cut(self, owner: str, conversation_id: str, position: int) -> None:
        """Drop all messages from `position` on."""
        self.replace_from(owner, conversation_id, position, ())

    def replace_from(
        self, owner: str, conversation_id: str, position: int, messages: Sequence[Message | StoredMessage]
    ) -> tuple[StoredMessage, ...]:
        """Put messages in place of all from `position` on; all of it happens or nothing."""
        rows = [self._row(message) for message in messages]
        with self._database.writing() as connection:
            place = find(connection, owner, conversation_id)
            check_position(connection, place, position)
            connection.execute(sql.CUT, place.bound(position=position, until=_NO_LIMIT))
            self._append(connection, place, rows)
            touch(connection, place, self._clock())
            return read_messages(connection, place)[position:]

    def rename(self, owner: str, conversation_id: str, title: str) -> Conversation:
        """Give a conversation another title."""
        title = checked_title(title)
        if not title:
            raise InvalidRequest("A title cannot be empty.", param="title")
        with self._database.writing() as connection:
            place = find(connection, owner, conversation_id)
            set_title(connection, place, title)
            return view(connection, place)

    def set_model(self, owner: str, conversation_id: str, model: str | None) -> Conversation:
        """Say which model goes on with a conversation."""
        with self._database.writing() as connection:
            place = find(connection, owner, conversation_id)
            connection.execute(sql.SET_MODEL, place.bound(model=model))
            return view(connection, place)

    def fork(self, owner: str, conversation_id: str, *, up_to: int | None = None) -> Conversation:
        """Copy a conversation, or its first `up_to` messages; the copy goes its own way."""
        with self._database.writing() as connection:
            place = find(connection, owner, conversation_id)
            old = view(connection, place)
            if up_to is not None:
                check_position(connection, place, up_to, "up_to")
            copied = read_messages(connection, place, -1 if up_to is None else up_to)
            fork = self._add(connection, owner, title=old.title, model=old.model, forked_from=old.id)
            for message in copied:
                add_message(connection, fork, row_of(message))
            return view(connection, fork)

    def delete(self, owner: str, *conversation_ids: str) -> None:
        """Delete conversations, all or none, and every trace of them: in the log, the index and the backups.

        When traces are left because the disk refuses, there is a notice.
        """
        with self._database.writing() as connection:
            for place in {find(connection, owner, one) for one in conversation_ids}:
                connection.execute(sql.DELETE_CONVERSATION, place.bound())
        try:
            self._database.forget()
        except LocalLLMError as error:  # the conversations are gone all the same
            self._database.notices.append(
                f"Traces of what was deleted may be left in {self.path.parent}: {error}"
            )

    def list(self, owner: str, *, limit: int = 50, before: str | None = None) -> tuple[Conversation, ...]:
        """Conversations, the one that was changed last first; those after `before`, the id that a page ended with."""
        _check_limit(limit)
        with self._database.reading() as connection:
            after = None if before is None else find(connection, owner, before).seq
            rows = connection.execute(sql.LIST, {"owner": owner, "before": after, "limit": limit})
            return tuple(map(to_conversation, rows.fetchall()))

    def latest(self, owner: str) -> Conversation | None:
        """The conversation that was changed last."""
        return next(iter(self.list(owner, limit=1)), None)

    def search(self, owner: str, text: str, *, limit: int = 20) -> tuple[SearchHit, ...]:
        """Messages in which all words of `text` are found, also as parts of words, latest first.

        Before them, conversations that have them in the title only. Capital letters do not matter, and no character
        has a special meaning.
        """
        _check_limit(limit)
        query = read_query(text)
        with self._database.reading() as connection:
            said = _run_search(connection, sql.search_messages, owner, query, limit)
            told = {seq for seq, *_ in said}
            titles = _run_search(connection, sql.search_titles, owner, query, limit)
            found = ([one for one in titles if one[0] not in told] + said)[:limit]
            views = {seq: view(connection, Place(seq, owner)) for seq, *_ in found}
        return tuple(
            SearchHit(views[seq], position, role, snippet(content, query.words))
            for seq, role, content, position in found
        )

    def _add(
        self,
        connection: sqlite3.Connection,
        owner: str,
        *,
        title: str,
        model: str | None,
        forked_from: str | None,
    ) -> Place:
        _check_owner(owner)
        check_text(model or "", "model")
        cursor = connection.execute(
            sql.ADD_CONVERSATION,
            {
                "id": uuid.uuid4().hex,
                "owner": owner,
                "title": "",
                "model": model,
                "now": self._clock(),
                "forked_from": forked_from,
            },
        )
        place = Place(int(cursor.lastrowid or 0), owner)
        if title:
            set_title(connection, place, title)
        return place

    def _append(self, connection: sqlite3.Connection, place: Place, rows: Sequence[dict[str, Any]]) -> int:
        """Add rows, and name the conversation by its first question; the number of the last row, or 0."""
        number = 0
        for row in rows:
            number = add_message(connection, place, row)
        question = next(
            (row["content"] for row in rows if row["role"] == "user" and row["content"].strip()), ""
        )
        if question and not view(connection, place).title:
            set_title(connection, place, title_from(question))
        return number

    def _row(self, message: Message | StoredMessage) -> dict[str, Any]:
        if isinstance(message, Message):
            message = StoredMessage(0, message, created=self._clock())
        return row_of(message)


def _run_search(
    connection: sqlite3.Connection, statement: Callable[..., str], owner: str, query: Query, limit: int
) -> list[tuple[int, str, str, int]]:
    text = statement(long=bool(query.long), short=bool(query.short))
    values = {"owner": owner, "query": query.long, "short": query.short, "limit": limit}
    return connection.execute(text, values).fetchall()


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= _MAX_LISTED:
        raise InvalidRequest(f"A limit of {limit} is not from 1 to {_MAX_LISTED}.", param="limit")


def _check_owner(owner: str) -> None:
    if not owner:
        raise InvalidRequest("A conversation needs an owner.", param="owner")
    check_text(owner, "owner")
