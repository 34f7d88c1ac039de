"""Ctrl-C and SIGTERM: stop gently when there is an answer to keep, at once when there is none.

No exception is raised from a handler: in the middle of an import or of a library's callback it would be
swallowed or printed. Before generation the process simply ends, which is safe because nothing on disk needs
more than what a kill would leave. During generation the handler only asks for the stop.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

from llm_local.terminal.exit_codes import INTERRUPTED, TERMINATED
from llm_local.terminal.streams import Messages

__all__ = ["StopSignals"]

_CODES: Final = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
_WORDS: Final = {INTERRUPTED: "interrupted", TERMINATED: "terminated"}
GRACE_S: Final = 2.0


class StopSignals:
    """What to do on SIGINT and SIGTERM. Use it from the main thread.

    `on_stop` is None, and the process ends at once; or a callable that asks the work in progress to stop, and
    the work then has `GRACE_S` seconds (a blocked pipe must not keep us) or until the second signal.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self.on_stop: Callable[[], None] | None = None
        self.code: int | None = None
        """The exit code asked for by a signal, or None."""

    def install(self) -> None:
        """Take over both signals, but leave one that the parent told us to ignore (a background job)."""
        for number in _CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        signal.signal(signal.SIGALRM, self._give_up)

    def announce(self) -> None:
        """Say in one line that a signal stopped us."""
        if self.code is not None:
            self._messages.note(_WORDS[self.code])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated = self.code is not None
        self.code = _CODES[signal.Signals(number)]
        if repeated or self.on_stop is None:
            self._give_up(number, frame)
        else:
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
            self.on_stop()

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        self.announce()
        os._exit(self.code or INTERRUPTED)
