"""One reply in Ollama's dialect: as one object, or as lines of JSON."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from llm_local.api.ollama.answers import AnswerWords, done_reason, metrics_of
from llm_local.api.told_headers import SEED_HEADER, ignored_header, trimmed_header
from llm_local.errors import EngineError, LocalLLMError
from llm_local.events import Delta, Event, Finish, fold
from llm_local.service import ServedReply

__all__ = ["Run"]


class Run:
    """A reply on its way to a client. Read it once: as `whole`, or line by line. `aclose` frees what it holds.

    - `began`: when the request came, in monotonic seconds.
    - `keeps_context`: the end tells the token ids of prompt and answer, to go on from.
    - `warnings`: what the end tells people.
    """

    def __init__(
        self,
        reply: ServedReply,
        words: AnswerWords,
        began: float,
        *,
        warnings: Sequence[str] = (),
        keeps_context: bool = False,
        ignored: Sequence[str] = (),
    ) -> None:
        self._reply = reply
        self._words = words
        self._began = began
        self._warnings = list(warnings)
        self._ids: list[int] | None = list(reply.prompt_ids) if keeps_context else None
        self._lines: AsyncGenerator[dict[str, Any]] | None = None
        self.headers = {**ignored_header(ignored), **trimmed_header(reply.trimmed)}
        if reply.options.seed is not None:
            self.headers[SEED_HEADER] = str(reply.options.seed)

    async def whole(self) -> dict[str, Any]:
        """The answer, when it is complete."""
        events: list[Event] = []
        try:
            async for event in self._reply:
                self._note(event)
                events.append(event)
        finally:
            await self.aclose()
        completion = fold(events)
        finish = Finish(completion.finish_reason, completion.usage, completion.timings)
        return self._words.whole(completion, self._known_at_end(finish))

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> dict[str, Any]:
        """The next line."""
        if self._lines is None:
            self._lines = self._told()
        return await anext(self._lines)

    async def aclose(self) -> None:
        """End the reply. Harmless when repeated, and before anything was read."""
        if self._lines is not None:
            await self._lines.aclose()
        await self._reply.aclose()

    async def _told(self) -> AsyncGenerator[dict[str, Any]]:
        async for event in self._reply:
            self._note(event)
            if isinstance(event, Finish):
                yield self._words.end(done_reason(event.reason), self._known_at_end(event))
                return
            part = self._words.part(event)
            if part is not None:
                yield part

    def _note(self, event: Event) -> None:
        if isinstance(event, Delta) and self._ids is not None:
            self._ids += event.token_ids
        if isinstance(event, Finish) and event.reason == "cancelled":
            raise _broken_off(self._reply)

    def _known_at_end(self, finish: Finish) -> dict[str, Any]:
        told: dict[str, Any] = {} if self._ids is None else {"context": self._ids}
        told |= metrics_of(finish, time.monotonic() - self._began)
        return told | ({"warnings": self._warnings} if self._warnings else {})


def _broken_off(reply: ServedReply) -> LocalLLMError:
    """The error of a reply that ended before its time, and not because its reader wanted that."""
    if reply.timed_out:
        return LocalLLMError("The deadline passed before the reply was complete.", kind="deadline_exceeded")
    return EngineError("The reply was broken off.", "Try again.")
