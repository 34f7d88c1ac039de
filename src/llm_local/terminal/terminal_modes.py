"""Giving a terminal back as it was found, whichever way a chat ends."""

from __future__ import annotations

import contextlib
import os
import termios
from typing import Any, Final

from llm_local.terminal.streams import STDIN

__all__ = ["TerminalModes"]

_END_OF_BRACKETED_PASTE: Final = b"\x1b[?2004l"


class TerminalModes:
    """The modes of a terminal as they were when this was made; nothing where the descriptor is none.

    `uses_escapes` is for whoever edits lines there: then a restore ends what line editors switch on, too.
    """

    def __init__(self, descriptor: int = STDIN) -> None:
        self._descriptor = descriptor
        self.uses_escapes = False
        self._modes: list[Any] | None = None
        with contextlib.suppress(termios.error, OSError):
            self._modes = termios.tcgetattr(descriptor)

    def restore(self) -> None:
        """Set them again. Harmless when repeated, and safe from a signal handler."""
        if self._modes is None:
            return
        with contextlib.suppress(termios.error, OSError):  # it may have hung up
            if termios.tcgetattr(self._descriptor) == self._modes:
                return
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._modes)
            if self.uses_escapes:
                os.write(self._descriptor, _END_OF_BRACKETED_PASTE)
