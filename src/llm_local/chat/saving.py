"""Keeps the archive equal to a conversation, message by message. What the archive cannot do never stops the chat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from llm_local.chat.turns import Entry
from llm_local.conversations.records import Conversation, ReplyFacts, StoredMessage
from llm_local.errors import LocalLLMError
from llm_local.messages import Message

if TYPE_CHECKING:
    from llm_local.chat.archive import Archive
    from llm_local.conversations.store import ReplyDraft

__all__ = ["Saver"]

DRAFT_EVERY_S: Final = 1.0
_GOES_ON: Final = "The conversation goes on in memory, and saving is tried again with the next message."


class Saver:
    """One conversation and its place in the archive, where there is an archive.

    A failure is told once, in `take_notices`; the next message brings the archive up to date.
    """

    def __init__(self, archive: Archive | None, clock: Callable[[], float]) -> None:
        self._archive = archive
        self._clock = clock
        self._stored: list[Entry] = []
        self._draft: ReplyDraft | None = None
        self._draft_at = 0.0
        self._notices: list[str] = []
        self._fails = False
        self.conversation: Conversation | None = None
        """What the archive calls it; None until the first message is stored."""

    @property
    def is_stored(self) -> bool:
        """Whether all that was handed over last is in the archive."""
        return self._archive is not None and not self._fails

    def take_notices(self) -> tuple[str, ...]:
        """What people should know of the saving, each line once."""
        notices = tuple(self._notices)
        self._notices.clear()
        return notices

    def leave(self) -> None:
        """The next message begins another conversation."""
        self.conversation, self._stored, self._draft = None, [], None

    def adopt(self, conversation: Conversation, entries: Sequence[Entry] | None = None) -> None:
        """Go on with one that is in the archive, and has these entries, or those that are stored of this one."""
        self.conversation, self._draft = conversation, None
        if entries is not None:
            self._stored = list(entries)

    def sync(self, entries: Sequence[Entry], model: str) -> None:
        """Make the archive hold exactly `entries`."""
        if self._archive is not None and (entries or self.conversation is not None):
            with self._guarded():
                try:
                    self._sync(self._archive, entries, model)
                except LocalLLMError as error:
                    if error.kind != "conversation_not_found":
                        raise
                    self.leave()  # somebody deleted it, but it is not over
                    self._sync(self._archive, entries, model)

    def rename(self, title: str) -> None:
        """Give the conversation a title."""
        if self._archive is not None and self.conversation is not None:
            self._archive.rename(self.conversation.id, title)
            self.conversation = self._archive.get(self.conversation.id)

    def set_model(self, model: str) -> tuple[str, ...]:
        """Say which model answers from now on; gives lines that people should see."""
        if self._archive is not None and self.conversation is not None:
            with self._guarded():
                self._archive.set_model(self.conversation.id, model)
        return self.take_notices()

    def begin_reply(self, model: str, at: int | None) -> None:
        """An answer comes, behind what `sync` was given last, or in place of what stands from `at` on."""
        self._draft, self._draft_at = None, self._clock()
        if self._archive is not None and self.conversation is not None and not self._fails:
            with self._guarded():
                self._draft = self._archive.begin_reply(self.conversation.id, model=model, at=at)

    def update(self, message: Callable[[], Message]) -> None:
        """So much of the answer is there; written at most once a second."""
        now = self._clock()
        if self._draft is not None and now - self._draft_at >= DRAFT_EVERY_S:
            self._draft_at = now
            draft = self._draft
            with self._guarded():
                draft.update(message())

    def end_reply(self, entries: Sequence[Entry], model: str, *, is_new: bool = True) -> None:
        """The answer is the last of `entries`; not `is_new`: there is none, and they are as before it began."""
        draft, self._draft = self._draft, None
        if draft is not None:
            with self._guarded():
                last = entries[-1]
                facts = last.facts or ReplyFacts(model)
                if not is_new:
                    draft.discard()
                elif last.status == "complete":
                    draft.finish(last.message, facts)
                else:
                    draft.interrupt(last.message, facts)
                self._stored = list(entries)
        self.sync(entries, model)

    def _sync(self, archive: Archive, entries: Sequence[Entry], model: str) -> None:
        rows = [_stored(at, entry) for at, entry in enumerate(entries)]
        same = _num_same(self._stored, entries)
        if self.conversation is None:
            self.conversation = archive.create(model=model, messages=rows)
        elif same < len(self._stored):
            archive.replace_from(self.conversation.id, same, rows[same:])
        else:
            # one by one behind what is there, so that what another program put there stays
            for entry in entries[same:]:
                self._add(archive, self.conversation.id, entry, model)
                self._stored.append(entry)
        self._stored = list(entries)

    def _add(self, archive: Archive, conversation_id: str, entry: Entry, model: str) -> None:
        if entry.status == "complete":
            archive.append(conversation_id, entry.message, facts=entry.facts)
            return
        facts = entry.facts or ReplyFacts(model)
        archive.begin_reply(conversation_id, model=facts.model).interrupt(entry.message, facts)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (LocalLLMError, OSError) as error:
            if not self._fails:
                self._notices.append(f"This conversation is not saved: {error} {_GOES_ON}")
            self._fails, self._draft = True, None
        else:
            if self._fails:
                self._notices.append("This conversation is saved again.")
            self._fails = False


def _stored(position: int, entry: Entry) -> StoredMessage:
    return StoredMessage(position, entry.message, entry.status, entry.facts, time.time())


def _num_same(stored: Sequence[Entry], entries: Sequence[Entry]) -> int:
    """How many entries at the beginning are in the archive already."""
    same = 0
    for one, other in zip(stored, entries, strict=False):
        if one != other:
            break
        same += 1
    return same
