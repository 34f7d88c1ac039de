"""The threads that compute masks. A queue and no more: handing work over is what a decode step pays for."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["MaskThreads"]

_Tasks = SimpleQueue[Callable[[], None] | None]


class MaskThreads:
    """Runs tasks, which must not raise, on `count` threads that end with the last reference to this object."""

    def __init__(self, count: int) -> None:
        self._tasks: _Tasks = SimpleQueue()
        for number in range(count):
            # a thread knows the queue only, or this object would never be forgotten
            threading.Thread(target=_work, args=(self._tasks,), name=f"mask-{number}", daemon=True).start()
        weakref.finalize(self, _stop, self._tasks, count)

    def run(self, task: Callable[[], None]) -> None:
        """Queue a task and return."""
        self._tasks.put(task)


def _work(tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # or the last mask would live until the next


def _stop(tasks: _Tasks, count: int) -> None:
    for _ in range(count):
        tasks.put(None)
