"""The conversation store as one owner sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_local.conversations.records import (
    LOCAL_OWNER,
    Conversation,
    ReplyFacts,
    SearchHit,
    StoredMessage,
)
from llm_local.conversations.store import ConversationStore, ReplyDraft
from llm_local.messages import Message

__all__ = ["Archive"]


@dataclass(frozen=True, slots=True)
class Archive:
    """A store bound to an owner. Every method raises what the store's method of that name does."""

    store: ConversationStore
    owner: str = LOCAL_OWNER

    def create(
        self, *, title: str = "", model: str | None = None, messages: Sequence[Message | StoredMessage] = ()
    ) -> Conversation:
        """Begin a conversation."""
        return self.store.create(self.owner, title=title, model=model, messages=messages)

    def get(self, conversation_id: str) -> Conversation:
        """One conversation, by its id or the beginning of it."""
        return self.store.get(self.owner, conversation_id)

    def messages(self, conversation_id: str) -> tuple[StoredMessage, ...]:
        """All its messages, in order."""
        return self.store.messages(self.owner, conversation_id)

    def append(
        self, conversation_id: str, message: Message, *, facts: ReplyFacts | None = None
    ) -> StoredMessage:
        """Add one message."""
        return self.store.append(self.owner, conversation_id, message, facts=facts)

    def begin_reply(self, conversation_id: str, *, model: str, at: int | None = None) -> ReplyDraft:
        """An answer that is coming; `at` is where it takes the place of what was there, once it is finished."""
        return self.store.begin_reply(self.owner, conversation_id, model=model, at=at)

    def cut(self, conversation_id: str, position: int) -> None:
        """Drop everything from a position on."""
        self.store.cut(self.owner, conversation_id, position)

    def replace_from(
        self, conversation_id: str, position: int, messages: Sequence[Message | StoredMessage]
    ) -> None:
        """Put messages in place of everything from a position on."""
        self.store.replace_from(self.owner, conversation_id, position, messages)

    def rename(self, conversation_id: str, title: str) -> None:
        """Give it a title."""
        self.store.rename(self.owner, conversation_id, title)

    def set_model(self, conversation_id: str, model: str) -> None:
        """Say which model answers from now on."""
        self.store.set_model(self.owner, conversation_id, model)

    def fork(self, conversation_id: str, *, up_to: int | None = None) -> Conversation:
        """A copy that goes its own way."""
        return self.store.fork(self.owner, conversation_id, up_to=up_to)

    def list(self, *, limit: int = 50) -> tuple[Conversation, ...]:
        """The conversations last changed, newest first."""
        return self.store.list(self.owner, limit=limit)

    def latest(self) -> Conversation | None:
        """The conversation last changed."""
        return self.store.latest(self.owner)

    def search(self, text: str, *, limit: int = 20) -> tuple[SearchHit, ...]:
        """Messages that hold a text."""
        return self.store.search(self.owner, text, limit=limit)
