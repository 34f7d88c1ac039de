"""`llm-local ps`: the servers that run on this machine, and what each has loaded."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from datetime import UTC, datetime
from typing import Any, Final

from llm_local.store.servers import RunningServer, running_servers
from llm_local.terminal.sizes import format_bytes
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tables import write_rows

__all__ = ["add_flags", "as_object", "run"]

_HEADER: Final = ("PORT", "HOST", "PID", "MODEL", "MEMORY", "SINCE", "UNTIL")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print the servers: a table on a terminal, lines with tabs between in a pipe, or JSON.

    Raises:
        StorageError: stdout refused.
    """
    servers = running_servers()
    if args.json:
        answer.write(json.dumps([as_object(one) for one in servers], indent=2) + "\n")
        return
    if not servers:
        messages.note("No server is running.")
        return
    write_rows(
        answer, _HEADER, (_shown(one, time.time()) for one in servers), map(_plain, servers), right=(0, 4)
    )


def as_object(server: RunningServer) -> dict[str, Any]:
    """For programs. Times are UTC; `process_visible` is False for a server of another container."""
    found = dataclasses.asdict(server)
    del found["process_start"]
    return {
        **found,
        "started": _iso(server.started),
        "keep_alive_until": _iso(server.keep_alive_until),
        "process_visible": server.is_visible,
    }


def _shown(server: RunningServer, now: float) -> tuple[str, ...]:
    """For people."""
    memory = "-" if server.memory_bytes is None else format_bytes(server.memory_bytes)
    return (
        str(server.port),
        server.host,
        str(server.pid),
        server.model or "none loaded",
        memory,
        datetime.fromtimestamp(server.started).strftime("%Y-%m-%d %H:%M"),
        _until(server, now),
    )


def _plain(server: RunningServer) -> tuple[str, ...]:
    """Exact, for programs; what is not known, or never comes, is empty."""
    return (
        str(server.port),
        server.host,
        str(server.pid),
        server.model or "",
        "" if server.memory_bytes is None else str(server.memory_bytes),
        _iso(server.started) or "",
        _iso(server.keep_alive_until) or "",
    )


def _until(server: RunningServer, now: float) -> str:
    if server.model is None:
        return "-"
    if server.keep_alive_until is None:
        return "it stops"
    left = max(0, round(server.keep_alive_until - now))
    return f"in {left} s" if left < 120 else f"in {round(left / 60)} min"


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
