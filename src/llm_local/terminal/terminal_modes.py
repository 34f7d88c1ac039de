"""Giving a terminal back as it was found, whichever way a chat ends."""

from __future__ import annotations

import contextlib
import os
import termios
from typing import Any, Final

from llm_local.terminal.streams import STDIN

__all__ = ["TerminalModes"]

# Bracketed paste ends, the cursor is shown, lines are broken at the margin, and no color is left.
_PLAIN_AGAIN: Final = b"\x1b[?2004l\x1b[?25h\x1b[?7h\x1b[0m"
_ERASE_DRAWING: Final = b"\r\x1b[J"
_LOCAL_FLAGS: Final = 3
_SPECIAL_KEYS: Final = 6


class TerminalModes:
    """The modes of a terminal as they were when this was made; nothing where the descriptor is none.

    `uses_escapes` is for whoever edits lines or draws there: then a restore ends what they switch on, too. With
    `has_drawing` it erases what changes: the line of the cursor and all below.
    """

    def __init__(self, descriptor: int = STDIN) -> None:
        self._descriptor = descriptor
        self.uses_escapes = False
        self.has_drawing = False
        self._modes: list[Any] | None = None
        with contextlib.suppress(termios.error, OSError):
            self._modes = termios.tcgetattr(descriptor)

    def silence(self) -> None:
        """Do not show what is typed, which would land in what is drawn; it is kept for who reads next.

        Ctrl-Z does nothing meanwhile: it would leave the shell with a terminal in this state. Ctrl-D is kept too; as
        the end of the input it would come when nobody reads, and be lost.
        """
        if self._modes is None:
            return
        modes = [*self._modes]
        modes[_LOCAL_FLAGS] &= ~termios.ECHO
        modes[_SPECIAL_KEYS] = [*modes[_SPECIAL_KEYS]]
        with contextlib.suppress(termios.error, OSError, ValueError):
            no_key = bytes([os.fpathconf(self._descriptor, "PC_VDISABLE") & 0xFF])
            modes[_SPECIAL_KEYS][termios.VSUSP] = modes[_SPECIAL_KEYS][termios.VEOF] = no_key
            termios.tcsetattr(self._descriptor, termios.TCSANOW, modes)

    def hush(self) -> None:
        """Silence it while an answer comes, unless the terminal edits lines itself and must show them."""
        if self.uses_escapes:
            self.silence()

    def show_typing(self) -> None:
        """Show what is typed again."""
        if self.uses_escapes and self._modes is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self._descriptor, termios.TCSANOW, self._modes)

    def restore(self) -> None:
        """Set them again. Harmless when repeated, and safe from a signal handler."""
        if self._modes is None:
            return
        with contextlib.suppress(termios.error, OSError):  # it may have hung up
            if termios.tcgetattr(self._descriptor) == self._modes:
                return
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._modes)
            if self.uses_escapes:
                os.write(self._descriptor, (_ERASE_DRAWING if self.has_drawing else b"") + _PLAIN_AGAIN)
