"""Keeping an exchange in a stored conversation. A disk that refuses never costs an answer; the answer says so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from fastapi import Request

from llm_local.api.dependencies import caller_of
from llm_local.api.keeping import Conversations, conversations_of
from llm_local.api.native.schemas import ChatBody
from llm_local.api.native.translate import to_message
from llm_local.conversations.records import ReplyFacts
from llm_local.conversations.store import ConversationStore, ReplyDraft
from llm_local.errors import Busy, ConversationNotFound, InvalidRequest, LocalLLMError
from llm_local.events import Finish
from llm_local.messages import Message
from llm_local.service import ServedReply

__all__ = ["Keeper", "find_keeper"]

logger = logging.getLogger(__name__)

_UPDATE_S: Final = 1.0

_Result = TypeVar("_Result")


class Keeper:
    """One exchange on its way into a conversation of the caller's. Made by `find_keeper`.

    - `before`: what is stored of the conversation already.
    - `conversation_id`: None until a new conversation is on the disk.
    - `persisted`: False once something could not be kept.
    """

    def __init__(
        self,
        conversations: Conversations,
        owner: str,
        conversation_id: str | None,
        before: tuple[Message, ...],
    ) -> None:
        self.before = before
        self.conversation_id = conversation_id
        self.persisted = True
        self._conversations = conversations
        self._owner = owner
        self._claimed: str | None = None
        self._draft: ReplyDraft | None = None
        self._settled = False
        self._updated = time.monotonic()

    async def begin(self, body: ChatBody, reply: ServedReply) -> None:
        """Keep what the caller said, and begin the reply.

        Raises:
            Busy: another reply to the conversation is on its way (kind `conversation_in_use`).
        """
        if self.conversation_id is not None:
            self._conversations.claim(self._owner, self.conversation_id)
            self._claimed = self.conversation_id
        try:
            await self._begin(body, reply)
        except BaseException:
            self._release()
            raise

    async def _begin(self, body: ChatBody, reply: ServedReply) -> None:
        messages = [to_message(one) for one in body.messages]

        def act(store: ConversationStore) -> tuple[str, ReplyDraft]:
            found = self.conversation_id
            if found is None:
                found = store.create(self._owner, model=reply.model, messages=messages).id
            elif store.get(self._owner, found).num_messages == len(self.before):
                store.replace_from(self._owner, found, len(self.before), messages)
            else:
                # somebody went on with it while this reply was made ready: nothing of theirs is overwritten
                raise Busy("The conversation went on meanwhile.", kind="conversation_in_use")
            return found, store.begin_reply(self._owner, found, model=reply.model)

        kept = await self._try(act)
        if kept is not None:
            self.conversation_id, self._draft = kept

    async def update(self, message: Message) -> None:
        """Keep what there is of the reply, at most once a second."""
        draft = self._draft
        if draft is not None and time.monotonic() - self._updated >= _UPDATE_S:
            self._updated = time.monotonic()
            await self._try(lambda store: draft.update(message))

    async def settle(self, message: Message, reply: ServedReply, finish: Finish | None) -> None:
        """Keep the reply: whole with `finish`, and marked as broken off without. Harmless when repeated."""
        draft = self._draft
        if draft is None or self._settled:
            self._release()
            return
        self._settled = True
        try:
            await self._settle(draft, message, reply, finish)
        finally:
            self._release()

    async def _settle(
        self, draft: ReplyDraft, message: Message, reply: ServedReply, finish: Finish | None
    ) -> None:
        if finish is None or finish.reason == "cancelled":
            await self._try(lambda store: draft.interrupt(message, ReplyFacts(reply.model)))
            return
        facts = ReplyFacts(reply.model, finish.reason, finish.usage, finish.timings, reply.options.seed)
        await self._try(lambda store: draft.finish(message, facts))

    def _release(self) -> None:
        claimed, self._claimed = self._claimed, None
        if claimed is not None:
            self._conversations.release(self._owner, claimed)

    async def _try(self, act: Callable[[ConversationStore], _Result]) -> _Result | None:
        try:
            return await self._conversations.do(act)
        except (LocalLLMError, OSError) as error:
            self.persisted = False
            logger.error("a conversation could not be kept: %s", error)
            return None


async def find_keeper(request: Request, body: ChatBody) -> Keeper | None:
    """What keeps the exchange, or None where nobody asked for that.

    Raises:
        ConversationNotFound: the caller has no conversation of that id.
        InvalidRequest: an id and `store` are both given.
    """
    owner, conversations = caller_of(request).owner, conversations_of(request)
    if body.conversation_id is None:
        return Keeper(conversations, owner, None, ()) if body.store else None
    if body.store:
        raise InvalidRequest(
            "store begins a new conversation, and conversation_id names an old one.",
            "Give one of them.",
            param="store",
        )
    wanted = body.conversation_id
    if not wanted:
        raise ConversationNotFound("There is no conversation with an empty id.")
    found, stored = await conversations.do(
        lambda store: (store.get(owner, wanted).id, store.messages(owner, wanted))
    )
    return Keeper(conversations, owner, found, tuple(one.message for one in stored))
