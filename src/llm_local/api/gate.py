"""The gate of a full server: requests for a reply are refused here, before they cost what routing and reading cost.

A server is asked most when it has least time. Who is refused here is admitted first, as everywhere else, so the refusal
counts against a limit, and nobody without a key learns how busy the server is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_local.api.bodies import IGNORED_HEADER
from llm_local.api.dependencies import admit, find_caller, service_of
from llm_local.errors import Busy

__all__ = ["GUARDED", "Gate"]

GUARDED: Final = frozenset(
    {
        "/generate",
        "/generate/stream",
        "/generate/batch",
        "/chat",
        "/chat/stream",
        "/queue/add",
        "/api/v1/chat",
        "/api/v1/generate",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/decisions",
        "/v1/systemone",
        "/v1/messages",
        "/v1/generate",
        "/v1/generate_stream",
        "/api/chat",
        "/api/generate",
    }
)
"""Paths whose POST stands in line for a model that writes."""

_REMEMBERS: Final = "/queue/add"  # the one path that knows a request again by its Idempotency-Key


@dataclass(frozen=True, slots=True)
class _Refused:
    """What stands for the route in the log and in the metrics."""

    path: str


class Gate:
    """Pure ASGI middleware, next to the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through.

        Raises:
            Busy: there is no place for it. Unauthorized: there is none, and the caller is nobody we know.
        """
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if scope["path"] in GUARDED:
            request = Request(scope, receive)
            try:
                service_of(request).check_room(find_caller(request))
            except Busy:
                scope["route"] = _Refused(scope["path"])
                await admit(request)
                raise
        if scope["path"] != _REMEMBERS and any(name == b"idempotency-key" for name, _ in scope["headers"]):
            send = _naming_the_key(send)
        await self._app(scope, receive, send)


def _naming_the_key(send: Send) -> Send:
    """Say among the ignored fields that nothing knows a request again by its key."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            before = headers.get(IGNORED_HEADER)
            headers[IGNORED_HEADER] = "Idempotency-Key" if before is None else f"{before}, Idempotency-Key"
        await send(message)

    return named
