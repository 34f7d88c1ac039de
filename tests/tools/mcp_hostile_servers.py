"""Servers that misbehave, one function each: `python mcp_hostile_servers.py NAME [FILE]`. They use no SDK."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any


def reply(message: dict[str, Any], result: dict[str, Any]) -> None:
    """Answer a request."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}) + "\n")
    sys.stdout.flush()


def serve(call: Any, **tool: Any) -> None:
    """Speak MCP well until the tool is called, then do `call`."""
    listed = {"name": "act", "inputSchema": {"type": "object"}, **tool}
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        if method == "initialize":
            reply(
                message,
                {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "hostile", "version": "1"},
                },
            )
        elif method == "tools/list":
            reply(message, {"tools": [listed]})
        elif method == "tools/call":
            call(message)


def answer(message: dict[str, Any]) -> None:
    """An answer as it should be."""
    reply(message, {"content": [{"type": "text", "text": "fine"}]})


def exits_at_once() -> None:
    """Ends with a status and last words."""
    print("no such database", file=sys.stderr)
    sys.exit(4)


def says_nothing() -> None:
    """Runs, and never answers."""
    print("thinking", file=sys.stderr, flush=True)
    time.sleep(600)


def writes_junk() -> None:
    """Thinks stdout is for people, and never answers."""
    print("Listening on port 8080!", flush=True)
    time.sleep(600)


def floods_with_junk() -> None:
    """Writes junk without an end."""
    while True:
        print("junk", flush=True)


def endless_line() -> None:
    """Writes one line that never ends."""
    while True:
        sys.stdout.write("x" * 65536)
        sys.stdout.flush()


def greets_first() -> None:
    """Writes a banner, then behaves."""
    print("Welcome!\n\n{}\n[1]", flush=True)
    serve(answer)


def dies_in_a_call() -> None:
    """Kills itself when it is called."""

    def act(message: dict[str, Any]) -> None:
        print("goodbye", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    serve(act)


def stays_silent_in_a_call() -> None:
    """Never answers a call, and tells which notifications come."""
    serve(lambda message: None)


def stops_reading() -> None:
    """Shakes hands, then reads nothing more."""
    serve(lambda message: time.sleep(600))


def will_not_leave() -> None:
    """Ignores the end of its stdin and SIGTERM, and has a child that does the same."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    child = subprocess.Popen(
        [sys.executable, "-c", ignoring], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    child.stdout.readline()  # it is ready to ignore
    with open(sys.argv[2], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    serve(answer)
    time.sleep(600)


def leaves_a_child() -> None:
    """Ends when it should, but its child does not."""
    child = subprocess.Popen(
        ["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with open(sys.argv[2], "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    serve(answer)


def talks_a_lot() -> None:
    """Fills its stderr, with bytes that are no text and a line that does not end."""
    for _ in range(200):
        os.write(2, b"\xff" * 4000 + b"\n")
    os.write(2, b"y" * 300_000)
    serve(answer)


def wrong_results() -> None:
    """Answers a call with what MCP does not allow."""
    serve(lambda message: reply(message, {"content": "no list"}))


def pages_without_end() -> None:
    """Lists tools without an end."""
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "initialize":
            reply(
                message,
                {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "pages", "version": "1"},
                },
            )
        elif message.get("method") == "tools/list":
            tool = {"name": "again", "inputSchema": {"type": "object"}}
            reply(message, {"tools": [tool] * 100, "nextCursor": "more"})


def knows_no_handshake() -> None:
    """Speaks only the protocol that came after the handshake."""
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        if method == "initialize":
            error = {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"], "requested": "x"}}
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}), flush=True)
        elif method == "server/discover":
            reply(
                message,
                {
                    "resultType": "complete",
                    "supportedVersions": ["2026-07-28"],
                    "capabilities": {"tools": {}},
                    "ttlMs": 0,
                    "cacheScope": "private",
                },
            )
        elif method == "tools/list":
            tool = {"name": "act", "inputSchema": {"type": "object"}}
            reply(message, {"resultType": "complete", "tools": [tool], "ttlMs": 0, "cacheScope": "private"})
        elif method == "tools/call":
            reply(message, {"resultType": "complete", "content": [{"type": "text", "text": "fine"}]})


def schema_bomb() -> None:
    """A schema that would fill the memory were its references put in place."""
    bomb("abcdefgh", 30)


def small_schema_bomb() -> None:
    """One of few references, that would fill a prompt."""
    bomb("abc", 10)


def wrong_tools() -> None:
    """Lists a tool whose parameters are no object."""
    serve(answer, inputSchema={"type": "array"})


def bomb(names: str, levels: int) -> None:
    """Serve a tool whose schema grows exponentially."""
    definitions = {
        f"d{depth}": {
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/d{depth + 1}"} for name in names},
        }
        for depth in range(levels)
    }
    definitions[f"d{levels}"] = {"type": "string"}
    serve(
        answer,
        inputSchema={"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": definitions},
    )


if __name__ == "__main__":
    globals()[sys.argv[1]]()
