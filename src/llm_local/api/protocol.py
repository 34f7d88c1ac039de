"""The connection itself: deadlines for heads and bodies, a bound on connections, and a way to cut a dead reader off.

uvicorn waits for ever for the rest of a request. Here who does not send a head in 10 seconds, or a body in 60, is
disconnected; and where too many are connected, the one that has been idle longest makes room.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, Literal

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

__all__ = ["ABORT", "MAX_HEAD_BYTES", "DeadlineProtocol"]

ABORT: Final = "llm_local.abort"
"""The key in a scope of what cuts the connection at once, without waiting for a reader that takes nothing."""

MAX_HEAD_BYTES: Final = 64 << 10
HEAD_S: Final = 10.0
BODY_S: Final = 60.0
MAX_CONNECTIONS: Final = 4096

_Stage = Literal["head", "body", "other"]
_SECONDS: Final = {"head": HEAD_S, "body": BODY_S}


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn with what it lacks against those who hold connections without using them."""

    max_connections = MAX_CONNECTIONS

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.app = _with_abort(self.app, self)
        self._stage: _Stage = "other"
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since = self.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, and make room for it where there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio says less than it gives
        if len(self.connections) > self.max_connections:
            self._make_room()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._forget_deadline()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read what has come, and see what is waited for now."""
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        """Be idle again."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in JSON and without a word of it."""
        too_long = len(self.conn.trailing_data[0]) > MAX_HEAD_BYTES
        status, kind, said = (431, "head_too_large", "The request's head is too large.") if too_long else (
            400, "invalid_request", "This is not an HTTP request.",
        )  # fmt: skip
        body = json.dumps({"error": {"kind": kind, "message": said, "hint": "", "param": None}}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        try:
            head = h11.Response(status_code=status, headers=headers, reason=b"")
            self.transport.write(self.conn.send(head) or b"")
            self.transport.write(self.conn.send(h11.Data(data=body)) or b"")
            self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError:  # an answer is on its way already
            pass
        self.transport.close()

    @property
    def is_idle(self) -> bool:
        """True while no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, DeadlineProtocol) and one.is_idle]
        oldest = min(
            (one for one in others if one is not self), key=lambda one: one._idle_since, default=self
        )
        oldest.transport.abort()

    def _watch(self) -> None:
        """Set the deadline of what is waited for now; one that runs goes on."""
        stage = self._find_stage()
        if stage != self._stage:
            self._forget_deadline()
            self._stage = stage
            if stage in _SECONDS:
                self._deadline = self.loop.call_later(_SECONDS[stage], self.transport.abort)

    def _find_stage(self) -> _Stage:
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
            return "head"
        return "other"

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _with_abort(app: Any, protocol: DeadlineProtocol) -> ASGIApp:
    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        scope[ABORT] = protocol.transport.abort
        await app(scope, receive, send)

    return wrapped
