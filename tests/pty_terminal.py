"""A real program in a real pseudo-terminal, with pyte as the screen somebody would look at.

with PtyTerminal([sys.executable, "-m", "llm_local.chat_cli"]) as terminal:
    terminal.wait_for(">")
    terminal.send("Hello\\r")
    assert terminal.exit_code() == 0
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyte

CTRL_C = "\x03"
CTRL_D = "\x04"
ENTER = "\r"
ESCAPE = "\x1b"
META_ENTER = "\x1b\r"
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"
PATIENCE_S = 60.0
_MAX_SCROLLBACK = 100_000
# What decides how a program sees its terminal and its language: a test says it, not who runs the test.
_DECIDING = (
    "NO_COLOR",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "COLUMNS",
    "LINES",
    "INPUTRC",
    "COLORTERM",
    "PYTHONIOENCODING",
)


class _Screen(pyte.HistoryScreen):
    """A screen that answers what a program asks it: where is the cursor."""

    def __init__(self, columns: int, lines: int, answer: Callable[[str], None]) -> None:
        super().__init__(columns, lines, history=_MAX_SCROLLBACK)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)


class PtyTerminal:
    """Runs `command` in a session of its own, whose terminal this is. Leaving the block kills what is left of it.

    `env` changes the environment; None as a value removes. `stdin`, `stdout` and `stderr` replace the terminal there:
    what `subprocess` takes.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        columns: int = 80,
        lines: int = 24,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        **streams: Any,
    ) -> None:
        self._master, self._slave = pty.openpty()
        self._lock = threading.Lock()
        self._screen = _Screen(columns, lines, self.send)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        """Every byte the program wrote to the terminal."""
        self._set_size(columns, lines)
        self.modes_before = self.modes()
        changes = {**dict.fromkeys(_DECIDING), "TERM": "xterm-256color", "LANG": "C.UTF-8", **(env or {})}
        merged = {**os.environ, **changes}
        self.process = subprocess.Popen(
            [str(word) for word in command],
            **{"stdin": self._slave, "stdout": self._slave, "stderr": self._slave, **streams},
            env={name: value for name, value in merged.items() if value is not None},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(self._slave),
        )
        self._stopped = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> PtyTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._stopped.set()
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        os.close(self._slave)
        os.close(self._master)

    def send(self, text: str | bytes) -> None:
        """Type `text`, or paste it; a long one as fast as the program takes it."""
        rest = memoryview(text.encode() if isinstance(text, str) else text)
        while rest:
            _, ready, _ = select.select([], [self._master], [], PATIENCE_S)
            assert ready, "the program reads nothing"
            rest = rest[os.write(self._master, rest[:1024]) :]

    def signal(self, number: int) -> None:
        """Send a signal to the program alone."""
        self.process.send_signal(number)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window, and tell the program."""
        with self._lock:
            self._screen.resize(lines, columns)
        self._set_size(columns, lines)

    def screen(self) -> str:
        """What is on the screen now, without blanks at the ends of its lines, nor empty lines at its end."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip("\n")

    def scrollback(self) -> str:
        """What has left the screen at the top, and the screen."""
        with self._lock:
            above = [_line_text(line, self._screen.columns) for line in self._screen.history.top]
            shown = [line.rstrip() for line in self._screen.display]
        return "\n".join([*above, *shown]).rstrip("\n")

    def cursor(self) -> tuple[int, int]:
        """Line and column of the cursor, from 0."""
        with self._lock:
            return self._screen.cursor.y, self._screen.cursor.x

    def wait_for(self, text: str, *, count: int = 1, timeout_s: float = PATIENCE_S) -> str:
        """Wait until `text`, without blanks at its end, is in the scrollback `count` times; returns the scrollback."""
        text = text.rstrip()
        self.wait_until(lambda: self.scrollback().count(text) >= count, repr(text), timeout_s=timeout_s)
        return self.scrollback()

    def wait_until(self, true: Callable[[], bool], what: str = "", *, timeout_s: float = PATIENCE_S) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < deadline, (
                f"waited in vain for {what}; the terminal shows:\n{self.scrollback()[-3000:]}"
            )
            time.sleep(0.01)

    def exit_code(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the end of the program, and of what it wrote; 128 and the number where a signal ended it."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; the terminal shows:\n{self.scrollback()[-3000:]}") from None
        self._settle()
        return code if code >= 0 else 128 - code

    def modes(self) -> list[Any]:
        """What `stty -g` would say."""
        return termios.tcgetattr(self._slave)

    def escapes(self) -> list[bytes]:
        """Every escape sequence the program wrote, or the beginning of it."""
        return re.findall(rb"\x1b.{0,8}", self.raw, re.S)

    def _settle(self) -> None:
        """Wait until what is on its way has been read."""
        while select.select([self._master], [], [], 0.05)[0]:
            time.sleep(0.005)
        with self._lock:
            pass

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        while not self._stopped.is_set():
            if not select.select([self._master], [], [], 0.05)[0]:
                continue
            with self._lock:
                try:
                    data = os.read(self._master, 65536)
                except OSError:
                    return
                self.raw += data
                self._stream.feed(data)


def _take_terminal(descriptor: int) -> None:
    """In the child: make the terminal the one that Ctrl-C and /dev/tty are about."""
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def _line_text(line: Mapping[int, Any], columns: int) -> str:
    return "".join(line[column].data for column in range(columns)).rstrip()
