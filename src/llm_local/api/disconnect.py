"""An answer that is not streamed, for as long as its reader is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from starlette.types import Receive

from llm_local.api.lifecycle import Lifecycle, shutting_down

__all__ = ["ClientGone", "until_gone", "wait_for_disconnect"]

_Result = TypeVar("_Result")


class ClientGone(Exception):
    """The client closed its connection before the answer: nobody is left to read one."""


async def until_gone(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of `work`, which is cancelled as soon as the client is gone or the server's grace is over.

    Call it after the body was read: from then on the only message of a client is that it has gone.

    Raises:
        ClientGone: the client has gone; the access log says 499.
        Busy: the server ends (kind `shutting_down`).
    """
    lifecycle: Lifecycle = request.app.state.lifecycle
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(wait_for_disconnect(request.receive))
    over = asyncio.ensure_future(lifecycle.over.wait())
    try:
        await asyncio.wait({task, gone, over}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone if gone.done() else shutting_down()
    finally:
        await _end(task, gone, over)


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client is gone. The rest of a body that comes in the meantime is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):  # its result was taken, or is nobody's any more
            await task
