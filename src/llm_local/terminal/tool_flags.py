"""Flags about tools. Nothing is a tool unless one of them says so."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_local.errors import InvalidRequest
from llm_local.options import Bound
from llm_local.terminal.flags import number_reader

__all__ = ["APPROVE_MODES", "ToolRequest", "add_tool_flags", "check_tool_flags", "tool_request"]

APPROVE_MODES: Final = ("ask", "all", "none")
MAX_ROUNDS: Final = Bound(1, 1000, integer=True)
CALL_S: Final = Bound(0.0, 86_400.0, open_low=True)
_SOURCES: Final = ("functions", "tool", "mcp")
_DETAILS: Final = ("approve", "max_tool_rounds", "tool_timeout", "tool_choice")


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The tools somebody asked for. `limits` has what `ToolLimits` takes, as far as it was given.

    `on_server_line` gets each line that a server writes to its stderr, from another thread.
    """

    function_files: tuple[str, ...]
    plug_in_tools: tuple[str, ...]
    servers: tuple[tuple[str, ...], ...]
    limits: Mapping[str, Any]
    approve: str = "ask"
    choice: str = "auto"
    on_server_line: Callable[[str], None] | None = None


def add_tool_flags(group: argparse._ActionsContainer) -> None:
    """Add the flags that name tools and say what they may do."""
    for flag, metavar, text in (
        (
            "--functions",
            "FILE",
            "Let the model call the public functions of FILE, a Python file, which is run.",
        ),
        ("--tool", "NAME", "Let the model call the tool NAME of a plug-in."),
        ("--mcp", "COMMAND", "Let the model call the tools of the MCP server that COMMAND starts."),
    ):
        more = " Can be given several times."
        group.add_argument(flag, action="append", metavar=metavar, help=text + more)
    group.add_argument(
        "--approve",
        choices=APPROVE_MODES,
        help="Whether a call may run: ask on the terminal each time, all, or none. Default: ask.",
    )
    group.add_argument(
        "--tool-choice",
        metavar="CHOICE",
        help="auto, none, required (the first reply is a call), or the name of the tool to call first. Default: auto.",
    )
    for flag, metavar, bound, text in (
        ("--max-tool-rounds", "ROUNDS", MAX_ROUNDS, "Run the calls of so many replies at most. Default: 8."),
        ("--tool-timeout", "SECONDS", CALL_S, "Wait so long for a call. Default: 30, for MCP servers 60."),
    ):
        group.add_argument(
            flag, type=number_reader(flag, bound), metavar=metavar, help=f"{text} Must be {bound}."
        )


def check_tool_flags(parsed: argparse.Namespace) -> None:
    """Refuse what has no place beside tools, or without them.

    Raises:
        InvalidRequest: naming the flag.
    """
    source = next((name for name in _SOURCES if getattr(parsed, name)), None)
    if source is None:
        for name in _DETAILS:
            if getattr(parsed, name) is not None:
                raise InvalidRequest(
                    f"{_flag(name)} has no place without tools.",
                    "Name some with --functions, --tool or --mcp.",
                    param=_flag(name),
                )
        return
    for name, hint in (("batch", "Ask one prompt at a time."), ("raw", "Use a conversation.")):
        if getattr(parsed, name):
            raise InvalidRequest(f"{_flag(source)} has no place with --{name}.", hint, param=_flag(source))


def tool_request(parsed: argparse.Namespace) -> ToolRequest | None:
    """The tools the flags ask for, or None.

    Raises:
        InvalidRequest: the command of a server cannot be read.
    """
    if not any(getattr(parsed, name) for name in _SOURCES):
        return None
    limits = {"max_rounds": parsed.max_tool_rounds, "call_s": parsed.tool_timeout}
    return ToolRequest(
        function_files=tuple(parsed.functions or ()),
        plug_in_tools=tuple(parsed.tool or ()),
        servers=tuple(_command(text) for text in parsed.mcp or ()),
        limits={name: value for name, value in limits.items() if value is not None},
        approve=parsed.approve or "ask",
        choice="auto" if parsed.tool_choice is None else parsed.tool_choice,
    )


def _command(text: str) -> tuple[str, ...]:
    """The words of a command, as a shell would part them; no shell is involved."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidRequest(f"--mcp: {text!r} cannot be read: {error}.", param="--mcp") from None
    if not words:
        raise InvalidRequest(
            "--mcp: the command is empty.", 'Such as --mcp "uvx mcp-server-time".', param="--mcp"
        )
    return words


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
