"""Standard output carries the answer and nothing else; everything for people goes to standard error.

Both are written unbuffered and as UTF-8 whatever the locale: an answer appears as it comes, a signal handler
may write at any moment, and nothing is left to be flushed (and to fail again) when the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import shutil
from typing import Final

from llm_local.errors import LocalLLMError, StorageError
from llm_local.terminal.sanitize import TerminalFilter, replace_surrogates, sanitize_line

__all__ = ["STDIN", "STDOUT", "AnswerWriter", "Messages", "hold_standard_streams"]

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2


def hold_standard_streams() -> frozenset[int]:
    """Open the null device on each of the descriptors 0, 1 and 2 that is closed, and return those that were.

    Otherwise the next file to be opened takes the number, and what is meant for people lands in that file.
    """
    closed = set()
    for descriptor in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
    return frozenset(closed)


class AnswerWriter:
    """The one way to standard output.

    On a terminal control characters are shown instead of sent; into a pipe or a file the text passes unchanged.

    Raises (from every method that writes):
        BrokenPipeError: the reader has gone.
        StorageError: the device refused, most often because it is full.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._filter = TerminalFilter() if raw.isatty() else None
        self.on_terminal = self._filter is not None
        self._ends_in_newline = False
        self.started = False
        """True once any text was written."""

    @classmethod
    def take_stdout(cls) -> AnswerWriter:
        """Own descriptor 1 alone: whatever a library prints on `sys.stdout` from now on goes to stderr."""
        descriptor = os.dup(STDOUT)
        os.dup2(STDERR, STDOUT)
        return cls(io.FileIO(descriptor, "w", closefd=False))  # it is open as long as the process runs

    @classmethod
    def keep_stdout(cls) -> AnswerWriter:
        """Write on descriptor 1 and leave it as it is, for a person who sees all that is written anyway."""
        return cls(io.FileIO(STDOUT, "w", closefd=False))

    def write(self, text: str) -> None:
        """Send a piece of the answer at once."""
        if text:
            self.started = True
            self._send(self._filter.feed(text) if self._filter else text)

    def write_bytes(self, data: bytes) -> None:
        """Send data that is no text, as it is; a terminal is no place for it.

        Raises:
            StorageError: stdout is a terminal.
        """
        if self._filter:
            raise StorageError("Data cannot be written to a terminal.", "Write it to a file.")
        self.started = True
        self._send_bytes(data)

    def draw(self, text: str) -> None:
        """Send text that has escape sequences of ours in it; whoever drew it has made foreign text harmless."""
        self._send(text)

    def end(self) -> None:
        """Finish the answer with a newline, unless its own text ended in one."""
        if self._filter:
            self._send(self._filter.finish())
        if not self._ends_in_newline:
            self._send("\n")

    def _send(self, text: str) -> None:
        if not text:
            return
        self._ends_in_newline = text.endswith("\n")
        self._send_bytes(replace_surrogates(text).encode("utf-8"))

    def _send_bytes(self, data: bytes) -> None:
        try:
            _write_all(self._raw, data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _write_error(error) from error


class Messages:
    """Notices and one status line on standard error. A failure to write them is never a failure of the run.

    `live` is True on a terminal that can go back to the start of a line; only there a status line is shown.
    No escape sequence is ever written: the status line is erased with blanks.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._terminal = raw.isatty()
        self.live = self._terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._status_width = 0
        self._shown = TerminalFilter() if self._terminal else None

    @classmethod
    def on_stderr(cls) -> Messages:
        """Messages on descriptor 2."""
        return cls(io.FileIO(STDERR, "w", closefd=False))

    def note(self, text: str) -> None:
        """Print one line."""
        self._send(self._erasing() + sanitize_line(text) + "\n")

    def block(self, text: str) -> None:
        """Print text of several lines: as it is, or harmless on a terminal."""
        if self._terminal:
            shown = TerminalFilter()
            text = shown.feed(text) + shown.finish()
        self._send(self._erasing() + text + ("" if text.endswith("\n") else "\n"))

    def piece(self, text: str) -> None:
        """Print a piece of a longer text at once: as it is, or harmless on a terminal."""
        self._send(self._erasing() + (self._shown.feed(text) if self._shown else text))

    def status(self, text: str) -> None:
        """Replace the status line; an empty text removes it. Does nothing unless `live`."""
        if not self.live:
            return
        line = sanitize_line(text)[: max(shutil.get_terminal_size().columns - 1, 0)]
        self._send(self._erasing() + line)
        self._status_width = len(line)

    def _erasing(self) -> str:
        width, self._status_width = self._status_width, 0
        return "\r" + " " * width + "\r" if width else ""

    def _send(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody is listening, and there is no third place to say so
            _write_all(self._raw, replace_surrogates(text).encode("utf-8"))


def _write_all(raw: io.RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        written = raw.write(rest)
        if written is None:  # somebody made the descriptor non-blocking: wait for room
            select.select([], [raw], [])
        else:
            rest = rest[written:]


def _write_error(error: OSError) -> LocalLLMError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = "Free some space." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return StorageError(f"Cannot write the answer to stdout: {reason}.", hint)
