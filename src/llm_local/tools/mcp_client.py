"""Tools of an MCP server that runs as a child process and speaks over its stdin and stdout.

    with open_server(["uvx", "mcp-server-time"]) as server:
        server.tools

The server gets a process group, a minimal environment and time limits; it is gone when the block is left. What it
asks of us (sampling, roots, elicitation) is refused. The SDK is asynchronous: it runs in one background thread.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from llm_local.errors import InvalidRequest, McpServerError
from llm_local.messages import ToolDefinition
from llm_local.tools.mcp_connection import Connection
from llm_local.tools.mcp_process import minimal_environment, shown_command
from llm_local.tools.mcp_results import result_text
from llm_local.tools.names import allowed_name, distinct_names
from llm_local.tools.schemas import plain_schema
from llm_local.tools.tool import Tool, ToolFailure

if TYPE_CHECKING:
    from mcp import types

__all__ = ["CALL_LIMIT_S", "START_LIMIT_S", "McpServer", "open_server"]

START_LIMIT_S: Final = 30.0  # the first start of a server often installs it
CALL_LIMIT_S: Final = 60.0
MAX_REFERENCES: Final = 32  # in a schema whose references are put in place
MAX_PLAIN_CHARS: Final = 50_000  # of what comes of it, unless it was that long before


@dataclass(frozen=True, slots=True)
class McpServer:
    """An open server. `name` is what it calls itself, made fit for the names of tools."""

    name: str
    tools: tuple[Tool, ...]


@contextmanager
def open_server(
    command: Sequence[str],
    *,
    timeout_s: float = START_LIMIT_S,
    call_timeout_s: float = CALL_LIMIT_S,
    env: Mapping[str, str] | None = None,
    on_stderr: Callable[[str], None] | None = None,
) -> Iterator[McpServer]:
    """Run `command` as an MCP server while the block runs.

    - `timeout_s`: seconds it may take until its tools are known; `call_timeout_s`: seconds of one call.
    - `env`: variables for it, beside the few that it inherits (its path, home and language; no tokens).
    - `on_stderr`: gets each line of its stderr, from another thread; without it only the last ones are kept.

    Raises:
        InvalidRequest: the command is empty, or not taken apart.
        McpServerError: the package `mcp` is missing, or the server does not start or is no MCP server.
    """
    if isinstance(command, str) or not command or not command[0]:
        what = "is one text" if command and isinstance(command, str) else "is empty"
        raise InvalidRequest(
            f"The command of an MCP server {what}.", "Give a list: the program, then its arguments."
        )
    if importlib.util.find_spec("mcp") is None:
        raise McpServerError(
            f"The MCP server `{shown_command(command)}` needs the Python package `mcp`, which is not installed.",
            "Install it: pip install 'llm-local[mcp]'.",
        )
    connection = Connection(command, minimal_environment(env), on_stderr)
    try:
        told, listed = connection.open(timeout_s)
        name = allowed_name(told or PurePath(command[0]).stem, "server")
        names = distinct_names([allowed_name(one.name) for one in listed])
        make = _ToolMaker(connection, name, call_timeout_s)
        yield McpServer(name, tuple(make(one, called) for one, called in zip(listed, names, strict=True)))
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class _ToolMaker:
    connection: Connection
    server: str
    limit_s: float

    def __call__(self, listed: types.Tool, name: str) -> Tool:
        def run(arguments: Mapping[str, Any]) -> str:
            result = self.connection.call(listed.name, arguments, self.limit_s)
            text = result_text(result)
            if result.get("isError"):
                raise ToolFailure(text or "The tool failed without a word.")
            return text

        description = listed.description or listed.title or ""
        definition = ToolDefinition(name, description, _parameters(listed.input_schema))
        # a little more than its own limit, which tells the server to stop
        return Tool(definition, run, f"mcp:{self.server}", self.limit_s + 5)


def _parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as models read it best. Many references are left: each could double what comes of the others."""
    schema = {"type": "object", **schema}
    given = json.dumps(schema)
    if given.count('"$ref"') > MAX_REFERENCES:
        return schema
    plain = plain_schema(schema)
    return plain if len(json.dumps(plain)) <= max(MAX_PLAIN_CHARS, len(given)) else schema
