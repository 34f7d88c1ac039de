"""Signals in a chat: Ctrl-C is about what is going on, SIGTERM and SIGHUP are about the chat.

What a signal does depends on what the chat does at that moment, and the chat says so:

- `reading`: a person types. An exception ends the reading, which is safe there and nowhere else.
- `working`: an answer comes, or a model is loaded. The work is asked to stop, and what there is of it is kept. If it
  does not within `DEAF_S` seconds, the next Ctrl-C ends the process; after SIGTERM, `GRACE_S` seconds do.
- else: nothing is there to be kept, and the process ends at once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from llm_local.terminal.exit_codes import HUNG_UP, INTERRUPTED, TERMINATED
from llm_local.terminal.streams import Messages

__all__ = ["ChatSignals", "Ended"]

GRACE_S: Final = 2.0
# A large model on a slow machine reads a part of a prompt for seconds before it looks whether to stop.
DEAF_S: Final = 10.0
_CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED, signal.SIGHUP: HUNG_UP}
_WORDS: Final = {INTERRUPTED: "interrupted", TERMINATED: "terminated", HUNG_UP: "hung up"}


class Ended(BaseException):
    """SIGTERM or SIGHUP came while somebody was asked for input. No failure, so no handler of failures sees it."""


class ChatSignals:
    """Takes over the signals of a process. Use it from the main thread.

    `on_exit` is called when the process ends from within a handler: it gives the terminal back.
    """

    def __init__(
        self,
        messages: Messages,
        on_exit: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._messages = messages
        self._on_exit = on_exit
        self._clock = clock
        self._cancel: Callable[[], None] | None = None
        self._reading = False
        self._on_interrupt: Callable[[], None] = lambda: None
        self._asked_s: float | None = None
        self.code: int | None = None
        """The exit code that SIGTERM or SIGHUP asks for, or None."""

    def install(self) -> None:
        """Take over the signals, but leave one that the parent told us to ignore."""
        for number in _CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        signal.signal(signal.SIGALRM, self._give_up)

    @property
    def cancelled(self) -> bool:
        """True when the work that is going on was asked to stop."""
        return self._asked_s is not None

    def forget(self) -> None:
        """Whatever was asked to stop has stopped; what comes next is asked anew."""
        self._asked_s = None

    @contextmanager
    def reading(self, on_interrupt: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Somebody is asked for input: Ctrl-C calls `on_interrupt` and raises KeyboardInterrupt, the others `Ended`."""
        if self.code is not None:
            raise Ended
        self.forget()
        self._reading, self._on_interrupt = True, on_interrupt
        try:
            yield
        finally:
            self._reading = False

    @contextmanager
    def working(self, cancel: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Something is going on that `cancel`, or a look at `cancelled`, can end.

        Inside of another, what was asked to stop before it began is asked at once.
        """
        self._reading = False
        outer, self._cancel = self._cancel, cancel
        if outer is None:
            self._asked_s = None
        elif self.cancelled:
            cancel()
        try:
            yield
        finally:
            self._cancel = outer
            if outer is None:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        code = _CODES[signal.Signals(number)]
        if number != signal.SIGINT:
            repeated, self.code = self.code is not None, code
            if self._reading and not repeated:
                raise Ended
            if repeated or self._cancel is None:
                self._give_up(number, frame)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        elif self._reading:
            self._on_interrupt()
            raise KeyboardInterrupt
        elif self._cancel is None or self._is_deaf():
            self._give_up(number, frame)
        if self._asked_s is None:
            self._asked_s = self._clock()
        if self._cancel is not None:
            self._cancel()

    def _is_deaf(self) -> bool:
        return self._asked_s is not None and self._clock() - self._asked_s > DEAF_S

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        code = self.code or INTERRUPTED
        self._on_exit()
        self._messages.status("")
        self._messages.note(_WORDS[code])
        os._exit(code)
