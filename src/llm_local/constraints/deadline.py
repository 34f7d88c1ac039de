"""Foreign code that cannot be interrupted, run so that it keeps nobody waiting and overflows no stack.

The library recurses over rules and references: a chain of a thousand ends the process on a thread's usual stack. So it
compiles on threads with a stack for the longest chain that is let in.

A busy machine makes no constraint worse: what is refused had its time, and a share of a processor in it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from llm_local.constraints.refusals import refusal
from llm_local.errors import Busy

__all__ = ["run_with_deadline"]

T = TypeVar("T")

STACK_BYTES: Final = 512 * 1024**2  # address space; memory is taken as it is used
MAX_AT_ONCE: Final = 2
SHARE: Final = 0.25  # of a processor, over the whole deadline: with less the machine is slow, not the work
PATIENCE: Final = 5  # deadlines that work without its share may take
_ASK_SECONDS: Final = 0.05

_slots = threading.BoundedSemaphore(MAX_AT_ONCE)
_starting = threading.Lock()


def run_with_deadline(work: Callable[[], T], seconds: float) -> T:
    """The result of `work`, or its exception. Work that goes on after the deadline is left to its own limits.

    Raises:
        InvalidRequest: `work` took longer than `seconds`, and got SHARE of a processor for so long.
        Busy: so many compile already that there was no turn for this one, or the machine has no time or thread for it.
    """
    if not _slots.acquire(timeout=seconds):
        raise Busy("Other constraints are being compiled.", "Try again.", retry_after_s=seconds)
    job = _Job(work)
    started = time.monotonic()
    try:
        _start(threading.Thread(target=job.run, name="constraint-compile", daemon=True))
    except RuntimeError as error:  # too many threads, or no address space for the stack
        _slots.release()
        raise Busy(
            f"No constraint can be compiled now: {error}.", "Try again.", retry_after_s=seconds
        ) from error
    wait = seconds
    while True:
        try:
            return job.result.result(timeout=wait)
        except TimeoutError:
            if job.result.done():
                raise
        if job.used_seconds() >= SHARE * seconds:
            raise refusal(
                f"The constraint took more than {seconds:g} seconds to compile.", "Make it simpler."
            )
        if time.monotonic() - started >= PATIENCE * seconds:
            raise Busy(
                "The machine is too busy to compile the constraint.", "Try again.", retry_after_s=seconds
            )
        wait = _ASK_SECONDS


class _Job(Generic[T]):
    """Work on a thread of its own, and the processor time it takes."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.result: Future[T] = Future()
        self._work = work
        self._clock: int | None = None
        self._begun = False

    def run(self) -> None:
        """Do it, and give the slot back."""
        try:
            # the thread asks for its own clock: of one that has ended there is none
            self._clock, self._begun = _thread_clock(), True
            self.result.set_result(self._work())
        except (
            BaseException
        ) as error:  # the library's panics are no Exception; the caller gets it whatever it is
            self.result.set_exception(error)
        finally:
            _slots.release()

    def used_seconds(self) -> float:
        """Of a processor, so far; infinitely many where the system does not say."""
        if not self._begun:
            return 0.0
        if self._clock is None:
            return math.inf
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # it has just ended
            return 0.0


def _thread_clock() -> int | None:
    """What tells the processor time of this thread; None where the system has no such clock."""
    find: Callable[[int], int] | None = getattr(time, "pthread_getcpuclockid", None)
    return None if find is None else find(threading.get_ident())


def _start(thread: threading.Thread) -> None:
    with _starting:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
