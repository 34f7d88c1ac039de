"""The clients of a benchmark: completions of servers on this machine, streamed, many side by side.

They do as little as possible while they read, since they share the machine with what they measure: what came when is
noted, and understood when all is over.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from llm_local.errors import EngineError

__all__ = ["HOST", "Answer", "Answers", "complete", "status_of"]

HOST: Final = "127.0.0.1"
"""The only address that is ever asked."""

_DATA: Final = b"data:"
_DONE: Final = b"[DONE]"
_SAID: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion. `text_s`: when each of its pieces of text came; `end_s`: when it was complete. Seconds from the
    moment at which the first client began."""

    text_s: tuple[float, ...]
    end_s: float
    prompt_tokens: int
    completion_tokens: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """Those of all clients, who begin at one moment: 0."""

    each: tuple[Answer, ...]

    @property
    def seconds(self) -> float:
        """Until the last one had its answer."""
        return max(one.end_s for one in self.each)


def complete(port: int, bodies: Sequence[Mapping[str, Any]], headers: Mapping[str, str]) -> Answers:
    """`POST /v1/completions` with each of `bodies` on a connection of its own, all at once.

    Raises:
        EngineError: one was refused, or not answered to its end; what the server said is in the message.
    """
    requests = [_request("POST", "/v1/completions", json.dumps(body).encode(), headers) for body in bodies]

    async def ask() -> list[list[tuple[float, bytes]]]:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_lines(port, request, began)) for request in requests]
        return [task.result() for task in tasks]

    try:
        found = asyncio.run(ask())
    except ExceptionGroup as group:
        raise _first(group) from None
    return Answers(tuple(map(_understood, found)))


async def status_of(port: int, path: str) -> int | None:
    """The status of `GET path`; None where nobody answers."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return None
    try:
        writer.write(_request("GET", path, b"", {}))
        return int((await reader.readline()).split()[1])
    except (OSError, ValueError, IndexError):
        return None
    finally:
        await _close(writer)


def _request(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    fields = {
        "host": HOST,
        "connection": "close",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


async def _lines(port: int, request: bytes, began: float) -> list[tuple[float, bytes]]:
    """The data of every event, with the moment at which it came."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 20)
    except OSError as error:
        raise EngineError(f"Port {port} takes no connection: {error.strerror}.") from None
    try:
        writer.write(request)
        return await _read(reader, began)
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError):
        raise EngineError(f"The server on port {port} broke off, or speaks no HTTP.") from None
    finally:
        await _close(writer)


async def _read(reader: asyncio.StreamReader, began: float) -> list[tuple[float, bytes]]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(maxsplit=2)[1])
    chunked = b"transfer-encoding: chunked" in head.lower()
    found: list[tuple[float, bytes]] = []
    rest = b""
    while piece := await _piece(reader, chunked=chunked):
        now = time.perf_counter() - began
        *lines, rest = (rest + piece).split(b"\n")
        found += [(now, line[len(_DATA) :].strip()) for line in lines if line.startswith(_DATA)]
    if status != 200:
        said = rest or b"".join(line for _, line in found)
        raise EngineError(f"The server refused with {status}: {said[:_SAID].decode(errors='replace')}")
    return found


async def _piece(reader: asyncio.StreamReader, *, chunked: bool) -> bytes:
    """What came next; nothing at the end."""
    if not chunked:
        return await reader.read(1 << 16)
    size = int(await reader.readline(), 16)
    piece = await reader.readexactly(size + 2)  # with the end of its line
    return piece[:size]


def _understood(lines: Sequence[tuple[float, bytes]]) -> Answer:
    text_s: list[float] = []
    texts: list[str] = []
    usage: Mapping[str, Any] = {}
    for moment, line in lines:
        if line == _DONE:
            continue
        chunk = _chunk(line)
        usage = chunk.get("usage") or usage
        text = "".join(choice.get("text") or "" for choice in chunk.get("choices", ()))
        if text:
            text_s.append(moment)
            texts.append(text)
    if not usage:
        raise EngineError("The server broke off, or did not say how many tokens it made.")
    # an answer of bytes that are no character, or of none
    moments = tuple(text_s) or (lines[-1][0],)
    return Answer(moments, lines[-1][0], usage["prompt_tokens"], usage["completion_tokens"], "".join(texts))


def _chunk(line: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(line)
    except ValueError:
        chunk = None
    if not isinstance(chunk, dict) or "error" in chunk:
        raise EngineError(f"The server failed: {line[:_SAID].decode(errors='replace')}")
    return chunk


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
