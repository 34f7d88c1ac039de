"""Conversations of the API's callers: the store, opened on first use and never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request

from llm_local.conversations.store import ConversationStore
from llm_local.errors import Busy

__all__ = ["Conversations", "conversations_of"]

_Result = TypeVar("_Result")


class Conversations:
    """One store for all callers; each call runs in a thread, since a disk may take its time."""

    def __init__(self, open_store: Callable[[], ConversationStore] = ConversationStore.open) -> None:
        self._open_store = open_store
        self._opening = asyncio.Lock()
        self._store: ConversationStore | None = None
        self._answering: set[tuple[str, str]] = set()

    def claim(self, owner: str, conversation_id: str) -> None:
        """Say that a reply to a conversation is on its way: a second one would not know of the first. `release` it.

        Raises:
            Busy: there is one already (kind `conversation_in_use`).
        """
        if (owner, conversation_id) in self._answering:
            raise Busy(
                "This conversation is being answered.",
                "Wait for that answer, or cancel it.",
                retry_after_s=1.0,
                kind="conversation_in_use",
            )
        self._answering.add((owner, conversation_id))

    def release(self, owner: str, conversation_id: str) -> None:
        """The reply is over. Harmless when repeated."""
        self._answering.discard((owner, conversation_id))

    async def do(self, act: Callable[[ConversationStore], _Result]) -> _Result:
        """What `act` does with the store: `await conversations.do(lambda store: store.get(owner, id))`.

        Raises:
            LocalLLMError: what the store raises.
        """
        async with self._opening:
            if self._store is None:
                self._store = await asyncio.to_thread(self._open_store)
        return await asyncio.to_thread(act, self._store)

    async def aclose(self) -> None:
        """Let go of the files. Harmless when repeated."""
        store, self._store = self._store, None
        if store is not None:
            await asyncio.to_thread(store.close)


def conversations_of(request: Request) -> Conversations:
    """The conversations of the application that `request` came to."""
    found: Any = request.app.state.conversations
    if not isinstance(found, Conversations):
        raise TypeError(found)
    return found
