"""`llm-local stop [PORT|all]`: have servers on this machine finish what they have begun, and end."""

from __future__ import annotations

import argparse
import json
import time
from typing import Final

from llm_local.cli.ps import as_object
from llm_local.errors import Busy, InvalidRequest, LocalLLMError
from llm_local.options import Bound
from llm_local.store.servers import RunningServer, ask_to_stop, running_servers, wait_until_gone
from llm_local.terminal.flags import number_reader
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["DRAIN_S", "add_flags", "run"]

DRAIN_S: Final = 40.0
"""How long, in seconds, a server may take to end: it gives its answers thirty."""

_PATIENCE: Final = Bound(0.0, 86_400.0)
_ALL: Final = "all"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument(
        "which",
        nargs="?",
        metavar="PORT|all",
        help="Which server; without it the only one there is.",
    )
    parser.add_argument(
        "--timeout",
        type=number_reader("--timeout", _PATIENCE),
        metavar="SECONDS",
        default=DRAIN_S,
        help=f"How long to wait until its answers are finished. Must be {_PATIENCE}. Default: {DRAIN_S:g}.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Ask the servers to stop, wait until they have, and say which.

    Raises:
        InvalidRequest: no server has that port, or there are several and none is named.
        Busy: one still answers when the time is over.
        LocalLLMError: one cannot be asked.
    """
    chosen = _chosen(args.which, running_servers())
    if not (chosen or args.json):
        messages.note("No server is running.")
    refusals = {one: refusal for one in chosen if (refusal := _ask(one)) is not None}
    end = time.monotonic() + args.timeout
    asked = [one for one in chosen if one not in refusals]
    left = [one for one in asked if not wait_until_gone(one, max(0.0, end - time.monotonic()))]
    stopped = [one for one in asked if one not in left]
    if args.json:
        told = {
            "stopped": [as_object(one) for one in stopped],
            "still_running": [as_object(one) for one in (*refusals, *left)],
        }
        answer.write(json.dumps(told, indent=2) + "\n")
    else:
        answer.write("".join(f"stopped the server on port {one.port}\n" for one in stopped))
    for refusal in refusals.values():
        raise refusal
    if left:
        ports = ", ".join(str(one.port) for one in left)
        raise Busy(
            f"After {args.timeout:g} s the server on port {ports} is still finishing its answers.",
            "It goes on to its end; stop it once more, and it ends at once.",
        )


def _chosen(which: str | None, servers: list[RunningServer]) -> list[RunningServer]:
    if which == _ALL or (which is None and len(servers) < 2):
        return servers
    ports = ", ".join(str(one.port) for one in servers)
    if which is None:
        raise InvalidRequest(
            f"Several servers are running, on the ports {ports}.", "Name one of them, or all.", param="PORT"
        )
    if not which.isdecimal():
        raise InvalidRequest(f"{which!r} is no port.", "Name a port, or all.", param="PORT")
    chosen = [one for one in servers if one.port == int(which)]
    if not chosen:
        hint = f"Servers run on: {ports}." if servers else "No server is running."
        raise InvalidRequest(f"No server of llm-local runs on port {which}.", hint, param="PORT")
    return chosen


def _ask(server: RunningServer) -> LocalLLMError | None:
    """Ask one; returns why it cannot be asked."""
    try:
        ask_to_stop(server)
    except ProcessLookupError:
        if server not in running_servers():
            return None  # it has just ended by itself
        return LocalLLMError(
            f"The server on port {server.port} is no process that can be seen from here.",
            "Stop it in the container that it runs in.",
        )
    except PermissionError:
        return LocalLLMError(
            f"The server on port {server.port} belongs to another user (process {server.pid}).",
            "Ask that user to stop it.",
        )
    return None
