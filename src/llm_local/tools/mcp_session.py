"""The MCP session with one server, through the official SDK. The one module that imports it; import it late.

The SDK speaks the protocol. Its streams are ours (`_Incoming`, `_Outgoing`), because a server is not trusted here: its
messages have a bounded length, and what is not a message is remembered for the error, and not logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from mcp import ClientSession, MCPError, types
from mcp.shared.message import SessionMessage

from llm_local import __version__
from llm_local.tools.mcp_process import MAX_LINE_BYTES, ServerProcess

__all__ = ["Session", "ended", "is_timeout"]

MAX_TOOLS: Final = 1000
MAX_JUNK_LINES: Final = 1000
_JUNK_CHARS: Final = 80

# The SDK logs what a server sent, with tracebacks; what matters of it is in our errors.
for _name in ("mcp", "client"):
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False


def is_timeout(error: MCPError) -> bool:
    """Whether a call was given up because its time was over."""
    return error.code == types.REQUEST_TIMEOUT


def ended(error: MCPError) -> bool:
    """Whether there is no connection any more."""
    return error.code == types.CONNECTION_CLOSED


class Session:
    """An open session: enter it in the loop that runs `process`.

    `wrong` says what the server did that ends a connection, and `junk` what else it wrote to its stdout.
    """

    def __init__(self, process: ServerProcess) -> None:
        self._incoming = _Incoming(process)
        client = types.Implementation(name="llm-local", version=__version__)
        # Without callbacks it declares no sampling, roots or elicitation, and refuses them all the same.
        self._client = ClientSession(self._incoming, _Outgoing(process), client_info=client)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._client.__aexit__(kind, error, trace)

    @property
    def wrong(self) -> str:
        """Completes "the server ...", or ""."""
        return self._incoming.wrong

    @property
    def junk(self) -> str:
        """The first line that was no message, shortened, or ""."""
        return self._incoming.junk

    async def negotiate(self) -> str:
        """Shake hands, as servers of every age understand, and return the name the server gives itself.

        Raises:
            MCPError, RuntimeError, ValueError: there is no common version, or it is no MCP server.
        """
        try:
            await self._client.initialize()
        except MCPError as error:
            if error.code not in (types.UNSUPPORTED_PROTOCOL_VERSION, types.METHOD_NOT_FOUND):
                raise
            await self._client.discover()  # a server of the kind that knows no handshake
        told = self._client.server_info
        return "" if told is None else told.name

    async def list_tools(self) -> list[types.Tool]:
        """All its tools, page after page.

        Raises:
            MCPError, RuntimeError, ValueError: it has too many, or answers wrongly.
        """
        found: list[types.Tool] = []
        capabilities = self._client.server_capabilities
        cursor: str | None = None
        while capabilities is not None and capabilities.tools is not None:
            page = await self._client.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            found += page.tools
            cursor = page.next_cursor
            if len(found) > MAX_TOOLS or (cursor is not None and not page.tools):
                raise ValueError(f"it lists more than {MAX_TOOLS} tools, or pages without any")
            if cursor is None:
                break
        return found

    async def call(self, name: str, arguments: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """The result of a call as it is on the wire. A call that takes longer is canceled.

        Raises:
            MCPError, RuntimeError, ValueError: refused, over time, or answered wrongly.
        """
        result = await self._client.call_tool(name, dict(arguments), read_timeout_seconds=limit_s)
        return result.model_dump(by_alias=True, mode="json", exclude_none=True)


class _Stream:
    """What both directions have in common: they end with the process, and not by themselves."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process

    async def aclose(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return None


class _Incoming(_Stream):
    """The server's messages."""

    def __init__(self, process: ServerProcess) -> None:
        super().__init__(process)
        self.junk = ""
        self.wrong = ""
        self._num_junk = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return await self.receive()

    async def receive(self) -> SessionMessage | Exception:
        """The next message. Lines that are none are passed over, up to a number.

        Raises:
            StopAsyncIteration: there is no more.
        """
        while not self.wrong:
            try:
                line = await self._process.read_line()
            except ValueError:
                self.wrong = f"sent a message of more than {MAX_LINE_BYTES >> 20} MiB"
                break
            if line is None:
                break
            message = self._parse(line)
            if message is not None:
                return SessionMessage(message)
        raise StopAsyncIteration

    def _parse(self, line: bytes) -> types.JSONRPCMessage | None:
        if not line.strip():
            return None
        try:
            return types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except (ValueError, RecursionError):
            self.junk = self.junk or line.decode("utf-8", "replace").strip()[:_JUNK_CHARS]
            self._num_junk += 1
            if self._num_junk > MAX_JUNK_LINES:
                self.wrong = f"writes to its stdout what is not MCP, such as {self.junk!r}"
            return None


class _Outgoing(_Stream):
    """Our messages."""

    async def send(self, item: SessionMessage, /) -> None:
        """Send one. A server that is gone, or does not read, is noticed where its answer is awaited."""
        data = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
        try:
            await self._process.write(data)
        except ConnectionError:
            await asyncio.sleep(0)
        except TimeoutError:
            self._process.kill()  # nothing that was sent half can be mended
