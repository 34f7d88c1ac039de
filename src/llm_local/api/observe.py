"""Every request gets an id of ours, one line in the log, and an answer even when nobody expected what happened.

The line holds no query, no body and no header but a short User-Agent: prompts may stand in each of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_local.api.disconnect import ClientGone
from llm_local.api.errors import error_response
from llm_local.api.rate_limit import rate_headers
from llm_local.logs import request_scope

__all__ = ["ACCESS_LOG", "Answered", "Failures", "Observed", "watch_loop"]

ACCESS_LOG: Final = "llm_local.access"

logger = logging.getLogger(ACCESS_LOG)

CLIENT_GONE: Final = 499  # not sent to anybody: what the log says of a request whose client has gone
_LABEL: Final = re.compile(rb"[\w.-]{1,64}", re.ASCII)
_MAX_LOGGED: Final = 200
_LAG_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request. `route` is its pattern, never its path; "" where there is no such route."""

    method: str
    route: str
    status: int
    duration_s: float
    streamed: bool


class Observed:
    """Pure ASGI middleware, outermost: ids, the access log, and `on_answered` for whoever counts."""

    def __init__(self, app: ASGIApp, on_answered: Callable[[Answered], None] = lambda answered: None) -> None:
        self._app = app
        self._on_answered = on_answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and say in one line what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with request_scope(os.urandom(16).hex()) as request_id:
            one = _Exchange(scope, send, request_id)
            try:
                await self._app(scope, receive, one.send)
            except ClientGone:
                one.status = CLIENT_GONE
            except asyncio.CancelledError:
                one.status = CLIENT_GONE
                raise
            finally:
                self._on_answered(one.answered())
                logger.info("request", extra=one.entry())


class _Exchange:
    """One request, and what is known of its answer so far."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope = scope
        self._send = send
        self._began = time.monotonic()
        self.state: dict[str, Any] = scope.setdefault("state", {})
        self.state["request_id"] = request_id
        self.label = next(
            (
                value
                for name, value in scope["headers"]
                if name == b"x-request-id" and _LABEL.fullmatch(value)
            ),
            request_id.encode(),
        ).decode("ascii")
        self.status = 0
        self.num_bytes = 0
        self.streamed = False

    async def send(self, message: Message) -> None:
        """Pass one message on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.label
            headers.setdefault("x-content-type-options", "nosniff")
            if self.state.get("rate") is not None:
                for name, value in rate_headers(self.state["rate"]).items():
                    headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            self.num_bytes += len(message.get("body", b""))
            self.streamed = self.streamed or bool(message.get("more_body"))
        await self._send(message)

    def answered(self) -> Answered:
        """For who counts."""
        return Answered(
            self._scope["method"], self._route(), self.status, time.monotonic() - self._began, self.streamed
        )

    def entry(self) -> dict[str, Any]:
        """For the log. The formatter makes one harmless line of it, whatever a client has sent."""
        client = self._scope.get("client")
        entry: dict[str, Any] = {
            "method": self._scope["method"][:16],
            "path": self._scope["path"][:_MAX_LOGGED],
            "route": self._route(),
            "status": self.status,
            "duration_ms": round(1000 * (time.monotonic() - self._began), 1),
            "bytes_sent": self.num_bytes,
            "client": client[0] if client else "",
            "user_agent": self._user_agent(),
        }
        if self.label != self.state["request_id"]:
            entry["client_request_id"] = self.label
        caller = self.state.get("caller")
        if caller is not None:
            entry["owner"] = caller.owner
        if self.state.get("failure_kind"):
            entry["error"] = self.state["failure_kind"]
        return entry

    def _route(self) -> str:
        return str(getattr(self._scope.get("route"), "path", ""))

    def _user_agent(self) -> str:
        found = next((value for name, value in self._scope["headers"] if name == b"user-agent"), b"")
        return bytes(found[:80]).decode("latin-1")


class Failures:
    """Pure ASGI middleware, innermost: what a route raised becomes the answer that its dialect gives to it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = False

        async def watched(message: Message) -> None:
            nonlocal began
            began = began or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientGone:
            raise
        except Exception as error:
            if scope["type"] != "http" or began:
                raise
            request = Request(scope, receive)
            await error_response(request, error)(scope, receive, send)


async def watch_loop(on_lag: Callable[[float], None], every_s: float = _LAG_EVERY_S) -> None:
    """Tell for ever how late, in seconds, the event loop wakes who sleeps: how long something has kept it busy."""
    loop = asyncio.get_running_loop()
    with suppress(asyncio.CancelledError):
        while True:
            due = loop.time() + every_s
            await asyncio.sleep(every_s)
            on_lag(max(0.0, loop.time() - due))
