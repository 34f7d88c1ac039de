"""The events of one request, numbered and kept, so that a reader who was cut off can go on where it was."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from llm_local.api.errors import json_text
from llm_local.api.streams import SseEvent

__all__ = ["EventLog"]

MAX_LOG_BYTES: Final = 4 << 20
# What an entry takes beside its text.
OVERHEAD_BYTES: Final = 400


class EventLog:
    """Events numbered from 1. Of what exceeds the bound the oldest go; any number of readers, each at its own pace."""

    def __init__(self, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: deque[SseEvent] = deque()
        self._first = 1  # the number of the oldest that is kept
        self._changed = asyncio.Event()
        self.num_bytes = 0
        self.closed = False

    @property
    def last(self) -> int:
        """The number of the newest event; 0 before there is one."""
        return self._first + len(self._entries) - 1

    def append(self, event: SseEvent) -> None:
        """Keep one more event. Its data becomes text here, once for all readers."""
        text = event.data if isinstance(event.data, str) else json_text(event.data)
        self._entries.append(SseEvent(text, event.event, str(self.last + 1)))
        self.num_bytes += len(text) + OVERHEAD_BYTES
        while self.num_bytes > self._max_bytes and len(self._entries) > 1:
            self.num_bytes -= len(str(self._entries.popleft().data)) + OVERHEAD_BYTES
            self._first += 1
        self._wake()

    def close(self) -> None:
        """No more will come."""
        self.closed = True
        self._wake()

    async def after(self, number: int) -> AsyncGenerator[SseEvent]:
        """The events after that number: those that are kept, then those that come, until it is closed.

        Where some are gone that the reader has not seen, an event `gap` says how many.
        """
        while True:
            if number + 1 < self._first:
                gone = self._first - 1  # more may go while the reader is busy with this
                yield SseEvent({"missed": gone - number}, "gap", str(gone))
                number = gone
                continue
            changed = self._changed
            if number < self.last:
                number += 1
                yield self._entries[number - self._first]
            elif self.closed:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
