"""Streamed answers: server-sent events and NDJSON over an iterator of chunks that are already in the dialect's words.

Law: after the first byte there is exactly one terminal. A failure becomes the dialect's error chunk, the stream ends,
and the iterator is closed whatever happens: the reader left, reads too slowly, or the server ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from sse_starlette.event import ServerSentEvent
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_local.api.disconnect import ClientGone, wait_for_disconnect
from llm_local.api.errors import Failure, failure_of, json_text
from llm_local.api.lifecycle import Lifecycle, shutting_down
from llm_local.api.protocol import ABORT

__all__ = ["DONE", "ErrorChunk", "EventStream", "NdjsonStream", "SseEvent", "StreamedAnswer", "ndjson", "sse"]

logger = logging.getLogger(__name__)

PING_S: Final = 15.0
SEND_TIMEOUT_S: Final = 30.0
_SHORTEST_WAIT_S: Final = 0.01
_PING: Final = b": ping\n\n"


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One server-sent event. `data` is text as it is, or any JSON value."""

    data: Any
    event: str | None = None
    id: str | None = None


class EventStream(Response):
    """Of a route that answers with server-sent events: `response_class`, for the OpenAPI document."""

    media_type = "text/event-stream"


class NdjsonStream(Response):
    """Of a route that answers with lines of JSON: `response_class`, for the OpenAPI document."""

    media_type = "application/x-ndjson"


DONE: Final = SseEvent("[DONE]")
"""What ends the streams of OpenAI's dialect."""

ErrorChunk = Callable[[Failure], Any]
"""From a failure after the first byte to what is sent for it: a chunk like all others, or None for nothing."""


def sse(
    request: Request,
    chunks: AsyncIterator[Any],
    *,
    on_error: ErrorChunk | None = None,
    headers: Mapping[str, str] | None = None,
    ping: SseEvent | None = None,
) -> StreamedAnswer:
    """Chunks as server-sent events: an `SseEvent`, or any JSON value that becomes the data of one.

    While there is nothing to send, `ping` (a comment by default) goes out every 15 seconds. Without `on_error` the
    error chunk is the body that the path's envelope gives.
    """
    answer = StreamedAnswer(request, chunks, _sse_bytes, "text/event-stream", on_error, headers)
    answer.ping = _PING if ping is None else _sse_bytes(ping)
    return answer


def ndjson(
    request: Request,
    chunks: AsyncIterator[Any],
    *,
    on_error: ErrorChunk | None = None,
    headers: Mapping[str, str] | None = None,
) -> StreamedAnswer:
    """Chunks as lines of JSON. There are no pings: clients take every line for an object of their own."""
    return StreamedAnswer(request, chunks, _json_line, "application/x-ndjson", on_error, headers)


class StreamedAnswer(Response):
    """A response that sends what an iterator yields. Made by `sse` and `ndjson`."""

    def __init__(
        self,
        request: Request,
        chunks: AsyncIterator[Any],
        encode: Callable[[Any], bytes],
        media_type: str,
        on_error: ErrorChunk | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self._request = request
        self._chunks = chunks
        self._encode = encode
        self._on_error = on_error
        self._lifecycle: Lifecycle = request.app.state.lifecycle
        self.ping = b""
        """What goes out while there is nothing to send."""
        self._turn = asyncio.Lock()
        self._last_sent = time.monotonic()
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it.

        Raises:
            ClientGone: the reader left, or took nothing for `SEND_TIMEOUT_S` seconds.
        """
        gone = asyncio.ensure_future(wait_for_disconnect(receive))
        over = asyncio.ensure_future(self._lifecycle.over.wait())
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await self._send(scope, send, start)
            await self._pump(scope, send, gone, over)
            await self._send(scope, send, {"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            over.cancel()
            await self._close()

    async def _pump(
        self, scope: Scope, send: Send, gone: asyncio.Future[None], over: asyncio.Future[Any]
    ) -> None:
        """Send the chunks in a task of its own, so that each costs little, and look after it."""
        sending = asyncio.ensure_future(self._send_chunks(scope, send))
        try:
            while not sending.done():
                silent_s = time.monotonic() - self._last_sent
                await asyncio.wait(
                    {sending, gone, over},
                    timeout=max(_SHORTEST_WAIT_S, PING_S - silent_s),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if gone.done():
                    raise ClientGone
                if over.done() and not sending.done():
                    raise shutting_down()
                await self._ping_if_silent(scope, send)
            sending.result()
        except (ClientGone, asyncio.CancelledError):
            raise
        except Exception as error:
            await _end(sending)  # first: nothing of it may follow what is the last
            await self._send_failure(scope, send, error)
        finally:
            await _end(sending)

    async def _send_chunks(self, scope: Scope, send: Send) -> None:
        async for chunk in self._chunks:
            body = self._encode(chunk)
            async with self._turn:
                await self._send_body(scope, send, body)

    async def _ping_if_silent(self, scope: Scope, send: Send) -> None:
        silent_s = time.monotonic() - self._last_sent
        # While a chunk is being sent its reader is slow, not waiting.
        if self.ping and silent_s >= PING_S and not self._turn.locked():
            async with self._turn:
                await self._send_body(scope, send, self.ping)
        elif silent_s >= PING_S:
            self._last_sent = time.monotonic()

    async def _send_failure(self, scope: Scope, send: Send, error: Exception) -> None:
        failure = failure_of(error, self._request.state.request_id)
        if failure.status >= 500:
            logger.error("stream failed: %s", failure.kind, exc_info=error)
        self._request.state.failure_kind = failure.kind
        if self._on_error is None:
            envelope = self._request.app.state.envelopes.of(self._request.scope["path"])
            chunk = envelope.body(failure)
        else:
            chunk = self._on_error(failure)
        if chunk is not None:
            await self._send_body(scope, send, self._encode(chunk))

    async def _send_body(self, scope: Scope, send: Send, body: bytes) -> None:
        await self._send(scope, send, {"type": "http.response.body", "body": body, "more_body": True})
        self._last_sent = time.monotonic()

    async def _send(self, scope: Scope, send: Send, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)
        except TimeoutError:
            # Closing would wait for this reader to take what is still buffered, which it does not.
            scope.get(ABORT, _nothing)()
            raise ClientGone from None

    async def _close(self) -> None:
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


async def _end(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):  # it is over; why, has been said
        await task


def _nothing() -> None:
    """There is no connection to cut: the application runs without a server."""


def _sse_bytes(chunk: Any) -> bytes:
    one = chunk if isinstance(chunk, SseEvent) else SseEvent(chunk)
    data = one.data if isinstance(one.data, str) else json_text(one.data)
    return ServerSentEvent(data, event=one.event, id=one.id, sep="\n").encode()


def _json_line(chunk: Any) -> bytes:
    return json_text(chunk).encode() + b"\n"
