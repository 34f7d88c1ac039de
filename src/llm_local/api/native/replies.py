"""One reply in the native dialect: as one object, or as server-sent events."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncGenerator
from typing import Any

from llm_local.api.errors import Failure, NativeEnvelope
from llm_local.api.native.conversation import Keeper
from llm_local.api.native.translate import real_name, to_event, usage_object, whole_answer
from llm_local.api.streams import SseEvent
from llm_local.api.told_headers import trimmed_header
from llm_local.events import Event, Finish, ToolCallEvent, fold
from llm_local.messages import Message, ToolCall
from llm_local.runtime.speed import speed_breakdown
from llm_local.service import ServedReply

__all__ = ["Run", "error_event"]


def error_event(failure: Failure) -> SseEvent:
    """The last event of a stream that fails."""
    return SseEvent(NativeEnvelope().body(failure), "error")


class Run:
    """A reply and who keeps it. Read it once: as `whole` or as `chunks`. `aclose` frees all of it.

    `began`: when the request came, in monotonic seconds.
    """

    def __init__(self, reply: ServedReply, began: float, keeper: Keeper | None = None) -> None:
        self.reply = reply
        self._began = began
        self._keeper = keeper
        self._created = int(time.time())
        self._texts: dict[str, list[str]] = {"content": [], "reasoning": []}
        self._calls: list[ToolCall] = []
        self._finish: Finish | None = None
        self._chunks: AsyncGenerator[SseEvent] | None = None

    async def whole(self) -> dict[str, Any]:
        """The answer, when it is complete."""
        events: list[Event] = []
        try:
            async for event in self.reply:
                events.append(event)
                await self._note(event)
        finally:
            await self.aclose()
        completion = fold(events)
        finish = Finish(completion.finish_reason, completion.usage, completion.timings)
        return {**self._head(), **whole_answer(completion), **self._tail(finish)}

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> SseEvent:
        """The next server-sent event: begin, then those of the reply, then finish."""
        if self._chunks is None:
            self._chunks = self._events()
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """End the reply, and keep what there is of it. Harmless when repeated, and before anything was read."""
        if self._chunks is not None:
            await self._chunks.aclose()
        await self.reply.aclose()
        if self._keeper is not None:
            await self._keeper.settle(self._message(), self.reply, self._finish)

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that say what a client should not miss."""
        found = trimmed_header(self.reply.trimmed)
        if self._keeper is not None and not self._keeper.persisted:
            found["x-persisted"] = "false"
        return found

    async def _events(self) -> AsyncGenerator[SseEvent]:
        yield SseEvent({**self._head(), "prompt_tokens": self.reply.prompt_tokens}, "begin")
        async for event in self.reply:
            await self._note(event)
            chunk = to_event(event)
            if chunk is not None:
                yield chunk
        if self._finish is not None:
            if self._keeper is not None:
                await self._keeper.settle(self._message(), self.reply, self._finish)
            yield SseEvent(self._tail(self._finish), "finish")

    async def _note(self, event: Event) -> None:
        if isinstance(event, Finish):
            self._finish = event
        elif isinstance(event, ToolCallEvent):
            self._calls.append(event.call)
        elif channel := getattr(event, "channel", None):
            self._texts[channel].append(getattr(event, "text", ""))
            if self._keeper is not None:
                await self._keeper.update(self._message())

    def _message(self) -> Message:
        reasoning = "".join(self._texts["reasoning"])
        return Message(
            "assistant",
            "".join(self._texts["content"]),
            reasoning=reasoning or None,
            tool_calls=tuple(self._calls),
        )

    def _head(self) -> dict[str, Any]:
        reply = self.reply
        head: dict[str, Any] = {
            "id": reply.id,
            "model": reply.model,
            "answered_by": real_name(reply.model, reply.info),
            "created": self._created,
            "seed": reply.options.seed,
            "notices": list(reply.notices),
            "trimmed": None if reply.trimmed is None else dataclasses.asdict(reply.trimmed),
        }
        if self._keeper is not None:
            head["conversation_id"] = self._keeper.conversation_id
            head["persisted"] = self._keeper.persisted
        return head

    def _tail(self, finish: Finish) -> dict[str, Any]:
        speed = speed_breakdown(finish.usage, finish.timings, time.monotonic() - self._began).to_object()
        sentence = speed.pop("sentence")
        tail: dict[str, Any] = {
            "finish_reason": finish.reason,
            "usage": usage_object(finish.usage),
            "timings": {**speed, "first_token_s": round(finish.timings.first_token_s, 6)},
            "speed": sentence,
        }
        if self._keeper is not None:
            tail["persisted"] = self._keeper.persisted
        return tail
