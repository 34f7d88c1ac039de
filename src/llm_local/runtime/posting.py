"""From the engine thread to an event loop: whatever comes of one step wakes the loop once.

Waking a loop is a system call that lets go of the interpreter's lock. Done for every sequence of a batch, it would give
the lock to the loop each time, and the engine would wait for it before its next step.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import Final

__all__ = ["LoopPost", "loop_post"]

Delivery = Callable[[], None]


class LoopPost:
    """Takes calls from any thread and makes them on one event loop, in their order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._gate = threading.Lock()
        self._waiting: list[Delivery] = []

    def post(self, deliver: Delivery) -> None:
        """Have the loop call `deliver` soon.

        Raises:
            RuntimeError: the loop is closed.
        """
        with self._gate:
            self._waiting.append(deliver)
            if len(self._waiting) > 1:  # it is awake already
                return
        try:
            loop = self._loop()
            if loop is None:
                raise RuntimeError("Event loop is closed")
            loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            with self._gate:
                self._waiting.clear()
            raise

    def _deliver(self) -> None:
        with self._gate:
            waiting, self._waiting = self._waiting, []
        for deliver in waiting:
            deliver()


_posts: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopPost]] = weakref.WeakKeyDictionary()


def loop_post() -> LoopPost:
    """The one of the running event loop."""
    loop = asyncio.get_running_loop()
    post = _posts.get(loop)
    if post is None:
        post = _posts[loop] = LoopPost(loop)
    return post
