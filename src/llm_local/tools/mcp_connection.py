"""One tool server in one background thread: opened, called and closed from any other thread, always within a limit."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from llm_local.errors import McpServerError
from llm_local.tools.mcp_process import (
    EXIT_GRACE_S,
    WRITE_LIMIT_S,
    ServerProcess,
    shown_command,
)
from llm_local.tools.tool import ToolFailure

if TYPE_CHECKING:
    from mcp import types

    from llm_local.tools.mcp_session import Session

__all__ = ["Connection"]

_LAST_LINES: Final = 5
_SLACK_S: Final = 1.0  # for what takes no time when all is well


class Connection:
    """The way to one server. Not to be used again once it is closed."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        on_stderr: Callable[[str], None] | None = None,
    ) -> None:
        self._command = tuple(command)
        self._environment = environment
        self._on_stderr = on_stderr
        self._ready: concurrent.futures.Future[tuple[str, list[types.Tool]]] = concurrent.futures.Future()
        self._process: ServerProcess | None = None
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="mcp-server", daemon=True)

    def open(self, limit_s: float) -> tuple[str, list[types.Tool]]:
        """Start the server, and return the name it gives itself and its tools.

        Raises:
            McpServerError: it does not start, or not within `limit_s`, or is no MCP server.
        """
        self._limit_s = limit_s
        self._thread.start()
        return self._ready.result()

    def call(self, name: str, arguments: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """The result of one call, as it is on the wire.

        Raises:
            ToolFailure: the server refused, took longer than `limit_s` (it is told to stop), or answered wrongly.
            McpServerError: the server is gone.
        """
        if self._loop is None:
            raise self._closed()
        calling = self._call(name, arguments, limit_s)
        try:
            future = asyncio.run_coroutine_threadsafe(calling, self._loop)
        except RuntimeError:  # the loop is closed
            calling.close()
            raise self._closed() from None
        try:
            return future.result(limit_s + WRITE_LIMIT_S + _SLACK_S)
        except concurrent.futures.CancelledError:
            raise self._closed() from None
        except TimeoutError:
            raise ToolFailure(_too_long(limit_s)) from None
        finally:
            future.cancel()  # for Ctrl-C: the server is told that nobody waits

    def close(self) -> None:
        """End the server and its thread."""
        if self._thread.ident is None:
            return
        try:
            if self._loop is not None:
                with contextlib.suppress(
                    RuntimeError
                ):  # it is closed already, a moment before its thread ends
                    self._loop.call_soon_threadsafe(self._leave)
            self._thread.join(4 * EXIT_GRACE_S + _SLACK_S)
        finally:
            if self._process is not None and self._thread.is_alive():  # Ctrl-C, or a loop that is stuck
                self._process.kill()

    def _leave(self) -> None:
        self._over.set()
        if self._main is not None and not self._ready.done():  # later a cancel might hit the end itself
            self._main.cancel()

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except asyncio.CancelledError:
            pass
        except (
            Exception
        ) as error:  # a bug, of the SDK or ours, which must not be a traceback in somebody's answer
            logging.getLogger(__name__).debug("%s failed", self._who, exc_info=True)
            if not self._ready.done():
                self._ready.set_exception(McpServerError(f"{self._who} failed: {_told(error)}."))
        finally:
            if not self._ready.done():
                self._ready.set_exception(self._closed())

    async def _live(self) -> None:
        """The whole life of the server: until `close` cancels it."""
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        try:
            self._process = await ServerProcess.start(self._command, self._environment, self._on_stderr)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._ready.set_exception(
                McpServerError(f"{self._who} cannot be started: {reason}.", "Check the command and its path.")
            )
            return
        try:
            await self._serve(self._process)
        finally:
            await self._process.stop()

    async def _serve(self, process: ServerProcess) -> None:
        # Late: the SDK takes half a second to import, and only who has servers needs it.
        from llm_local.tools.mcp_session import Session

        # Errors are caught inside: the SDK's task group would wrap them.
        async with Session(process) as session:
            try:
                async with asyncio.timeout(self._limit_s):
                    told = await session.negotiate(), await session.list_tools()
            except TimeoutError:
                said = f"; it writes what is not MCP, such as {session.junk!r}" if session.junk else ""
                what = f"did not answer within {self._limit_s:g} s{said}"
                self._ready.set_exception(await self._failed(session, what, "before it answered"))
            except Exception as error:
                what = f"does not speak MCP: {_told(error).rstrip('.')}"
                self._ready.set_exception(await self._failed(session, what, "before it answered"))
            else:
                self._session = session
                self._ready.set_result(told)
                await self._over.wait()

    async def _call(self, name: str, arguments: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        # Late: see `_serve`.
        from mcp import MCPError

        from llm_local.tools.mcp_session import ended, is_timeout

        session, process = self._session, self._process
        if session is None or process is None:
            raise self._closed()
        if process.returncode is not None:
            raise await self._failed(session, "has ended", "some time ago")
        try:
            return await session.call(name, arguments, limit_s)
        except MCPError as error:
            if ended(error):
                what = f"closed the connection during the call of {name}"
                raise await self._failed(session, what, f"during the call of {name}") from None
            raise ToolFailure(_too_long(limit_s) if is_timeout(error) else _told(error)) from None
        except (RuntimeError, ValueError) as error:
            raise ToolFailure(f"The tool answered what MCP does not allow: {_told(error)}") from None

    async def _failed(self, session: Session, what: str, when: str) -> McpServerError:
        """The error that says what happened, and what the server said last.

        `what` holds where the process runs on; else it ended, `when`.
        """
        process = self._process
        if process is None:
            return self._closed()
        await process.settle()
        code = process.returncode
        if session.wrong:
            what = session.wrong
        elif code is not None:
            what = f"ended {when} ({f'exit status {code}' if code >= 0 else f'killed by signal {-code}'})"
        last = " | ".join(process.tail[-_LAST_LINES:])
        return McpServerError(
            f"{self._who} {what}.", f"Its last words: {last}" if last else "It said nothing."
        )

    def _closed(self) -> McpServerError:
        return McpServerError(f"{self._who} is closed.")

    @property
    def _who(self) -> str:
        return f"The MCP server `{shown_command(self._command)}`"


def _too_long(limit_s: float) -> str:
    return f"The tool took longer than {limit_s:g} s and was canceled."


def _told(error: Exception) -> str:
    """What an error says, in one line and shortened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:500]
