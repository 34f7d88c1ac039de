"""One reply that a service gives: what is known of it before it begins, then its events."""

from __future__ import annotations

import uuid
import weakref

from llm_local.events import ContextTrimmed, Event, Finish
from llm_local.options import GenerationOptions
from llm_local.runtime.handle import AsyncEventStream
from llm_local.runtime.pool import Lease
from llm_local.runtime.preparing import Opened
from llm_local.specs import ModelInfo

__all__ = ["ServedReply"]


class ServedReply:
    """Iterate it for its events, `Finish` last; or `cancel()`; or `aclose()`, which frees all that it holds.

    - `id`: made here, and nobody else's. `model`: the name it was asked for by. `info`: what really answers.
    - `prompt_text`, `prompt_tokens`: exactly what the model sees. `options`: as they hold, with the seed.
    - `notices`: lines people should see. `trimmed`: what was left out of the conversation.
    """

    def __init__(self, lease: Lease, opened: Opened) -> None:
        prepared = opened.prepared
        self.id = uuid.uuid4().hex
        self.model = lease.resident.name
        self.info: ModelInfo = lease.model.info
        self.prompt_text = prepared.prompt_text
        self.prompt_tokens = len(prepared.prompt_ids)
        self.options: GenerationOptions = prepared.options
        self.notices = prepared.notices
        self.trimmed: ContextTrimmed | None = prepared.trimmed
        self._lease = lease
        self._opened = opened
        self._stream: AsyncEventStream | None = None
        self._end = weakref.finalize(self, lease.release)

    def __aiter__(self) -> ServedReply:
        return self

    async def __anext__(self) -> Event:
        try:
            if self._stream is None:
                worker = self._lease.resident.worker
                self._stream = AsyncEventStream(worker, self._opened.request, self._opened.reader)
            event = await anext(self._stream)
        except BaseException:
            await self.aclose()
            raise
        if isinstance(event, Finish):
            self._end()
        return event

    async def __aenter__(self) -> ServedReply:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def cancel(self) -> None:
        """Ask for the end: the events go on to `Finish("cancelled")`."""
        if self._stream is not None:
            self._stream.cancel()

    async def aclose(self) -> None:
        """Stop without reading on, and free place, slot and memory. Harmless when repeated."""
        if self._stream is not None:
            await self._stream.aclose()
        self._end()
