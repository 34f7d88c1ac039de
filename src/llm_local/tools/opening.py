"""The tools that somebody asked for by name, from wherever they come, for as long as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from llm_local.errors import InvalidRequest
from llm_local.tools.collection import collect_tools, named_tool
from llm_local.tools.names import without_clashes
from llm_local.tools.tool import Tool

__all__ = ["open_sources"]


@contextmanager
def open_sources(
    *,
    function_files: Sequence[str] = (),
    plug_in_tools: Sequence[str] = (),
    servers: Sequence[Sequence[str]] = (),
    call_s: float | None = None,
    choice: str = "auto",
    on_server_line: Callable[[str], None] | None = None,
) -> Iterator[tuple[Tool, ...]]:
    """Open all sources and give their tools while the block runs.

    `servers` are the commands of MCP servers, which get `call_s` seconds for a call, or their own default.
    `choice` is the `tool_choice` that will be asked for: a name in it must be a tool's. `on_server_line` gets each line
    that a server writes to its stderr, with the server's command before it, from another thread.

    Raises:
        InvalidRequest: a file cannot be used, there is no such tool, or two have the same name.
        LocalLLMError: a server does not start.
    """
    # Late: each kind of source brings libraries that only it needs.
    from llm_local.tools.function_files import load_function_file

    with ExitStack() as opened:
        sources = [load_function_file(path) for path in function_files]
        if plug_in_tools:
            sources.append(_plug_ins(plug_in_tools))
        for command in servers:
            from llm_local.tools.mcp_client import CALL_LIMIT_S, open_server
            from llm_local.tools.mcp_process import shown_command

            server = open_server(
                command,
                call_timeout_s=CALL_LIMIT_S if call_s is None else call_s,
                on_stderr=on_server_line and partial(_tell, on_server_line, shown_command(command)),
            )
            sources.append(opened.enter_context(server).tools)
        tools = collect_tools(without_clashes(tool for source in sources for tool in source))
        if choice not in ("auto", "none", "required"):
            named_tool(choice, tools)
        yield tools


def _tell(on_line: Callable[[str], None], server: str, line: str) -> None:
    on_line(f"{server}: {line}")


def _plug_ins(names: Sequence[str]) -> tuple[Tool, ...]:
    from llm_local.tools.plugin_tools import plugin_tools

    tools = {tool.source.removeprefix("plug-in:"): tool for tool in plugin_tools(frozenset(names))}
    missing = next((name for name in names if name not in tools), None)
    if missing is not None:
        raise InvalidRequest(
            f"There is no tool {missing!r} among the plug-ins that PLUGINS allows.",
            "`llm-local plugins` lists what there is.",
            param="tools",
        )
    return tuple(tools[name] for name in dict.fromkeys(names))
