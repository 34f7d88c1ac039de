"""A real MCP server, made with the SDK: tools of every kind of answer. Run it as a process; it speaks over stdio."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

server = MCPServer("everything server", instructions="Nothing of this is read.")


@server.tool()
def get_weather(city: str) -> str:
    """Get the current weather in a city."""
    return f"18 degrees in {city}"


@server.tool()
def add_numbers(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


@server.tool()
def forecast(city: str, days: int = 2) -> dict[str, Any]:
    """The weather of the next days."""
    return {"city": city, "highs": [20 + day for day in range(days)]}


@server.tool()
def fail(reason: str) -> str:
    """Fail, as told."""
    raise ValueError(reason)


@server.tool()
def pictures() -> CallToolResult:
    """Everything that is not text."""
    data = base64.b64encode(b"x" * 12_000).decode()
    return CallToolResult(
        content=[
            TextContent(type="text", text="Here they are:"),
            ImageContent(type="image", data=data, mime_type="image/png"),
            AudioContent(type="audio", data="eHg=", mime_type="audio/wav"),
            ResourceLink(type="resource_link", uri="file:///a.txt", name="a", mime_type="text/plain", size=3),
            EmbeddedResource(type="resource", resource=TextResourceContents(uri="memo:1", text="a note")),
            EmbeddedResource(type="resource", resource=BlobResourceContents(uri="memo:2", blob="eHg=")),
        ]
    )


@server.tool()
async def sleep(seconds: float, marker: str) -> str:
    """Sleep, and leave marks: when that begins, and when it is canceled."""
    Path(marker).write_text("began")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        Path(marker).write_text("canceled")
        raise
    return "slept"


@server.tool()
async def ask_back(kind: str, ctx: Context[Any]) -> str:
    """Ask the client for what it does not offer."""
    try:
        if kind == "roots":
            await ctx.session.list_roots()
        else:
            await ctx.session.create_message(messages=[], max_tokens=1)
    except Exception as error:
        return f"refused: {error}"
    return "granted"


@server.tool()
def environment() -> list[str]:
    """The names of the variables this process has."""
    return sorted(os.environ)


@server.tool()
def die(status: int) -> str:
    """End the process in the middle of a call."""
    print("line one", file=sys.stderr)
    print("out of cheese", file=sys.stderr, flush=True)
    os._exit(status)


@server.tool(name="odd name/with.dots")
def odd() -> str:
    """A tool whose name no format carries."""
    return "odd"


if __name__ == "__main__":
    print("everything is ready", file=sys.stderr, flush=True)
    server.run("stdio")
