"""A tool server's process: a process group of its own, bounded streams, and an end that is certain.

Everything here runs in one asyncio loop, except `kill`, which may be called from anywhere.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

__all__ = ["ServerProcess", "minimal_environment", "shown_command"]

MAX_LINE_BYTES: Final = 16 * 2**20  # of one message; what is longer ends the connection
TAIL_LINES: Final = 20
TAIL_CHARS: Final = 500  # of one line of stderr
EXIT_GRACE_S: Final = 2.0  # to leave when stdin is closed, and again after SIGTERM
WRITE_LIMIT_S: Final = 10.0  # for a server to read what we sent
_POLL_S: Final = 0.01

# What a program needs to find itself at home; none of it is a secret, unlike most of what else is there.
_INHERITED: Final = (
    "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
)  # fmt: skip


_logger = logging.getLogger(__name__)


def minimal_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The few variables of this process that a server inherits, and the ones that were given for it."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ} | dict(extra or {})


def shown_command(command: Sequence[str]) -> str:
    """The command as a person would type it, shortened."""
    text = shlex.join(command)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _watchdog(group: int) -> subprocess.Popen[bytes]:
    """A process that ends the group when this one was killed, or left in a hurry as doors do on a signal."""
    script = Path(__file__).with_name("mcp_watchdog.py")
    return subprocess.Popen(  # noqa: S603  (our own file, with this Python)
        [sys.executable, "-I", "-S", str(script), str(group)],
        env={},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


class ServerProcess:
    """One running server. Lines of its stderr go to `on_stderr`, and the last of them are kept."""

    def __init__(self, process: subprocess.Popen[bytes], on_stderr: Callable[[str], None] | None) -> None:
        self._process = process
        self._on_stderr = on_stderr
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._writing = asyncio.Lock()
        self._transports: list[asyncio.BaseTransport] = []
        self._watchdog: subprocess.Popen[bytes] | None = None
        atexit.register(self.kill)

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_stderr: Callable[[str], None] | None = None,
    ) -> ServerProcess:
        """Start `command` with this environment and no other.

        Raises:
            OSError, ValueError: it cannot be started.
        """
        process = subprocess.Popen(  # noqa: S603  (what the user wants to run, and no shell)
            list(command),
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is ours alone, and its children are stopped with it
        )
        server = cls(process, on_stderr)
        try:
            server._watchdog = _watchdog(process.pid)
            await server._connect()
        except BaseException:
            await server.stop()
            raise
        return server

    async def _connect(self) -> None:
        self._stdout = await self._reader(self._process.stdout, MAX_LINE_BYTES)
        stderr = await self._reader(self._process.stderr, 2**16)
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        transport, _ = await loop.connect_write_pipe(lambda: protocol, self._process.stdin)
        self._transports.append(transport)
        self._stdin = asyncio.StreamWriter(transport, protocol, None, loop)
        self._listening = asyncio.create_task(self._listen(stderr))

    async def _reader(self, pipe: IO[bytes] | None, limit: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=limit)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._transports.append(transport)
        return reader

    @property
    def returncode(self) -> int | None:
        """How it ended, as `subprocess` says it; None while it runs."""
        return self._process.poll()

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of its stderr."""
        return tuple(self._tail)

    async def read_line(self) -> bytes | None:
        """The next line of its stdout, or None when there is no more.

        Raises:
            ValueError: the line is longer than `MAX_LINE_BYTES`.
        """
        with contextlib.suppress(ConnectionError):
            return await self._stdout.readline() or None
        return None

    async def write(self, data: bytes) -> None:
        """Send it something.

        Raises:
            TimeoutError: it does not read.
            ConnectionError: nobody reads any more.
        """
        async with self._writing, asyncio.timeout(WRITE_LIMIT_S):
            self._stdin.write(data)
            await self._stdin.drain()

    async def settle(self, limit_s: float = 0.5) -> None:
        """Wait a moment for a process that is about to end, and for its last words."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await asyncio.shield(self._listening)
                await self._wait(lambda: self.returncode is not None, limit_s)

    async def stop(self) -> None:
        """End the process and its children: by closing its stdin, by SIGTERM, by SIGKILL."""
        if hasattr(self, "_stdin") and not self._stdin.transport.is_closing():
            self._stdin.transport.abort()  # not `close`, which would wait for a full pipe
        for stronger in (signal.SIGTERM, signal.SIGKILL):
            if await self._wait(lambda: self.returncode is not None, EXIT_GRACE_S):
                break
            self._signal(stronger)
        await self._wait(lambda: self.returncode is not None, EXIT_GRACE_S)
        if self._signal(signal.SIGTERM):  # children that outlived it
            await self._wait(lambda: not self._signal(0), EXIT_GRACE_S / 4)
            self._signal(signal.SIGKILL)
        self._release()

    def kill(self) -> None:
        """End it at once, without a word. For when there is no time left."""
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_GRACE_S)

    def _release(self) -> None:
        atexit.unregister(self.kill)
        if self._watchdog is not None:
            try:
                self._watchdog.communicate(b".", WRITE_LIMIT_S)  # all is well, and it ends
            except subprocess.TimeoutExpired:
                self._watchdog.kill()
                self._watchdog.communicate()
        if hasattr(self, "_listening"):
            self._listening.cancel()
        for transport in self._transports:
            transport.close()
        connected = len(self._transports)
        for pipe in (self._process.stdout, self._process.stderr, self._process.stdin)[connected:]:
            if pipe is not None:
                pipe.close()

    def _signal(self, number: int) -> bool:
        """Send it to the whole group; False where there is none left."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            return False
        return True

    async def _wait(self, condition: Callable[[], bool], limit_s: float) -> bool:
        ends = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() >= ends:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        """Keep the pipe of its stderr empty, or it would wait for us."""
        rest = b""
        while chunk := await stderr.read(2**16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._said(line)
            if len(rest) > TAIL_CHARS * 4:  # a line without an end, which is cut where it bursts
                self._said(rest)
                rest = b""
        if rest:
            self._said(rest)

    def _said(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()[:TAIL_CHARS]
        if text:
            self._tail.append(text)
            if self._on_stderr is not None:
                with contextlib.suppress(Exception):  # the pipe must be read on, or the server would wait
                    self._on_stderr(text)
            else:
                _logger.debug("process %d says: %s", self._process.pid, text)
