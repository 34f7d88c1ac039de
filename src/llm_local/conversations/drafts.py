"""A reply while it is being written: kept as it grows, marked as interrupted until it is whole."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_local.conversations import statements as sql
from llm_local.conversations.database import Database
from llm_local.conversations.records import ReplyFacts, ReplyStatus, StoredMessage
from llm_local.conversations.rows import (
    Place,
    add_message,
    message_at,
    rewrite_message,
    row_of,
    touch,
)
from llm_local.messages import Message

__all__ = ["ReplyDraft"]


class ReplyDraft:
    """One reply on its way into a conversation; made by `ConversationStore.begin_reply`.

    Until `finish` what is kept of it reads as `interrupted`, so a process that is killed leaves no half reply that
    looks whole. A draft that replaces older messages leaves them alone until it is settled, and keeps nothing of
    itself before; messages that came after it was begun stay.

    Raises (from every method):
        ConversationNotFound: the conversation was deleted meanwhile.
        RuntimeError: it was settled before.
        InvalidRequest, StorageError, Busy, DatabaseUnusable: as for the store; the draft can be tried again.
    """

    def __init__(
        self,
        database: Database,
        place: Place,
        *,
        model: str | None,
        replaced: tuple[int, int] | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`replaced`: the position from which on messages are replaced, and the number of the last of them."""
        self._database = database
        self._place = place
        self._model = model
        self._replaced = replaced
        self._clock = clock
        self._created = clock()
        self._row: int | None = None
        self._settled = False

    def update(self, message: Message) -> None:
        """Keep what there is of the reply so far."""
        self._check_open()
        if self._replaced is None:
            self._write(self._stored(message, "interrupted", None))

    def finish(self, message: Message, facts: ReplyFacts | None = None) -> StoredMessage:
        """The reply is whole."""
        return self._settle(self._stored(message, "complete", facts))

    def interrupt(self, message: Message, facts: ReplyFacts | None = None) -> StoredMessage:
        """The reply was broken off, and what there is of it stays, marked."""
        return self._settle(self._stored(message, "interrupted", facts))

    def discard(self) -> None:
        """Have it as if there had been no reply."""
        self._check_open()
        if self._row is not None:
            with self._database.writing() as connection:
                connection.execute(sql.DELETE_MESSAGE, self._place.bound(message=self._row))
        self._settled = True

    def _settle(self, stored: StoredMessage) -> StoredMessage:
        self._check_open()
        found = self._write(stored)
        self._settled = True
        return found

    def _write(self, stored: StoredMessage) -> StoredMessage:
        row = row_of(stored)
        model = self._model if stored.facts is None else stored.facts.model
        with self._database.writing() as connection:
            if self._replaced is not None:
                position, until = self._replaced
                connection.execute(sql.CUT, self._place.bound(position=position, until=until))
            number = self._row
            if number is None or not rewrite_message(connection, self._place, number, row):
                number = add_message(connection, self._place, row)
            touch(connection, self._place, self._clock(), model)
            found = message_at(connection, self._place, number, stored)
        self._row = number  # only now, for it is there only now
        return found

    def _stored(self, message: Message, status: ReplyStatus, facts: ReplyFacts | None) -> StoredMessage:
        return StoredMessage(0, message, status, facts, self._created)

    def _check_open(self) -> None:
        if self._settled:
            raise RuntimeError("The reply was finished, interrupted or discarded before.")
