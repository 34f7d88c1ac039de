"""The server process: listens, says so to the machine, and ends as it is told.

The first SIGTERM or Ctrl-C ends it gently: nothing new is taken, and what runs may finish within the grace. The second
ends it at once, which is safe because nothing on disk needs more than what a kill would leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from types import FrameType
from typing import Any, Final

from fastapi import FastAPI
from uvicorn import Config, Server

from llm_local.api.lifecycle import Lifecycle
from llm_local.api.protocol import MAX_HEAD_BYTES, DeadlineProtocol
from llm_local.errors import LocalLLMError

__all__ = ["INTERRUPTED", "ApiServer", "PortTaken", "raise_file_limit"]

logger = logging.getLogger(__name__)

INTERRUPTED: Final = 130
_FORCED: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: 143}
_KEEP_ALIVE_S: Final = 30
_AFTER_GRACE_S: Final = 1.5  # for the last words of streams that were cut
_MAX_FILES: Final = 65_536


class PortTaken(LocalLLMError):
    """The address cannot be listened on."""


class ApiServer(Server):
    """uvicorn's server on one or several ports, with our way to end."""

    def __init__(
        self, app: FastAPI, host: str, ports: Sequence[int], on_drain: Callable[[], None] = lambda: None
    ) -> None:
        """`on_drain` is called on the event loop when the first signal came."""
        self.lifecycle: Lifecycle = app.state.lifecycle
        super().__init__(
            Config(
                app,
                host=host,
                port=ports[0],
                http=DeadlineProtocol,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # anybody may send X-Forwarded-For
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=ceil(self.lifecycle.grace_s + _AFTER_GRACE_S),
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            )
        )
        self._on_drain = on_drain
        self._host = host
        self._ports = tuple(ports)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.signal: int | None = None
        """The first signal that came, or None."""

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, 130 after Ctrl-C."""
        return INTERRUPTED if self.signal == signal.SIGINT else 0

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that it really listens on."""
        return tuple(one.sockets[0].getsockname()[1] for one in self.servers if one.sockets)

    async def startup(self, sockets: Any = None) -> None:
        """Listen on all ports, and only then have the application begin.

        Raises:
            PortTaken: one of them cannot be had.
        """
        self._loop = asyncio.get_running_loop()
        self.servers = []
        for port in self._ports:
            self.servers.append(await self._listen(port))
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise LocalLLMError("The application did not start; the log says why.")
        for server in self.servers:
            await server.start_serving()
        self.started = True

    async def _listen(self, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()

        def make() -> asyncio.Protocol:
            return DeadlineProtocol(self.config, self.server_state, self.lifespan.state)

        try:
            return await loop.create_server(
                make, self._host, port, backlog=self.config.backlog, start_serving=False
            )
        except OSError as error:
            for server in self.servers:
                server.close()
            raise PortTaken(
                f"Port {port} of {self._host} cannot be listened on: {error.strerror or error}.",
                "`llm-local ps` shows servers of ours; --port takes another one.",
            ) from error

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM over for as long as the server runs, and do not raise them anew."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _FORCED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal: begin to end. The second: end."""
        if self.signal is not None:
            os._exit(_FORCED[signal.Signals(sig)])
        self.signal = sig
        self.should_exit = True
        if self._loop is not None:
            self.lifecycle.begin_drain(self._loop)
            self._loop.call_soon_threadsafe(self._on_drain)


def raise_file_limit() -> None:
    """Let this process hold as many connections as the system allows it to."""
    try:
        # Late: not on every platform.
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    DeadlineProtocol.max_connections = max(16, min(DeadlineProtocol.max_connections, soft - 256))
