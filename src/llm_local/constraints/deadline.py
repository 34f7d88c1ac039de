"""Foreign code that cannot be interrupted, run so that it keeps nobody waiting and overflows no stack.

The library recurses over rules and references: a chain of a thousand ends the process on a thread's usual stack. So it
compiles on threads with a stack for the longest chain that is let in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from llm_local.constraints.refusals import refusal
from llm_local.errors import Busy

__all__ = ["run_with_deadline"]

T = TypeVar("T")

STACK_BYTES: Final = 512 * 1024**2  # address space; memory is taken as it is used
MAX_AT_ONCE: Final = 2

_slots = threading.BoundedSemaphore(MAX_AT_ONCE)
_starting = threading.Lock()


def run_with_deadline(work: Callable[[], T], seconds: float) -> T:
    """The result of `work`, or its exception. Work that goes on after the deadline is left to its own limits.

    Raises:
        InvalidRequest: `work` took longer than `seconds`.
        Busy: so many compile already that there was no turn for this one.
    """
    if not _slots.acquire(timeout=seconds):
        raise Busy("Other constraints are being compiled.", "Try again.", retry_after_s=seconds)
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except (
            BaseException
        ) as error:  # the library's panics are no Exception; the caller gets it whatever it is
            result.set_exception(error)
        finally:
            _slots.release()

    _start(threading.Thread(target=run, name="constraint-compile", daemon=True))
    try:
        return result.result(timeout=seconds)
    except TimeoutError:
        if result.done():
            raise
        raise refusal(
            f"The constraint took more than {seconds:g} seconds to compile.", "Make it simpler."
        ) from None


def _start(thread: threading.Thread) -> None:
    with _starting:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
