"""Calling an application as a server would, with control over every message: raw paths, slow bodies, early ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message

Result = TypeVar("Result")


@dataclass
class Answer:
    """What came back; `status` 0 when nothing did."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[tuple[str, Any]]:
        """The server-sent events, as (event, data); comments are left out."""
        found = []
        for block in self.body.decode().split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":")
            )
            if fields:
                found.append((fields.get("event", ""), json.loads(fields["data"])))
        return found


class Client:
    """Requests to an application, on one event loop. Close it.

    `gone`, when set, tells the application that the client left; `read` counts the bytes of bodies that it took.
    """

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] | None = None) -> None:
        self.app = app
        self._headers = {"host": "localhost", **(headers or {})}
        self._runner = asyncio.Runner()
        self.gone = asyncio.Event()
        self.read = 0

    async def call(
        self,
        method: str,
        target: str,
        body: bytes | object = b"",
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        *,
        more: bool = False,
        client: str = "127.0.0.1",
    ) -> Answer:
        """One request. `body` that is not bytes is sent as JSON; with `more` its end never comes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        path, _, query = target.partition("?")
        given = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        names = {name.lower() for name, _ in given}
        every = [*((name, value) for name, value in self._headers.items() if name not in names), *given]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (name.lower().encode(), value.encode("utf-8")) for name, value in every if value is not None
            ],
            "client": (client, 5000),
            "server": ("127.0.0.1", 8000),
        }
        pieces = [raw[start : start + 65536] for start in range(0, len(raw), 65536)] or [b""]
        answer = Answer()

        async def receive() -> Message:
            if pieces:
                piece = pieces.pop(0)
                self.read += len(piece)
                return {"type": "http.request", "body": piece, "more_body": bool(pieces) or more}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            await asyncio.sleep(0)
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.parts.append(message.get("body", b""))

        await self.app(scope, receive, send)
        return answer

    def ask(self, *args: Any, **named: Any) -> Answer:
        """The same for tests that are not asynchronous."""
        return self.run(self.call(*args, **named))

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run something on the loop of this client."""
        return self._runner.run(work)

    def close(self) -> None:
        """End the loop."""
        self._runner.close()
