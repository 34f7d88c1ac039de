"""May this call run? Asked on the terminal itself, because stdin may be the pipe and stderr a file."""

from __future__ import annotations

import contextlib
import json
import os
import select
import termios
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llm_local.messages import ToolCall
from llm_local.terminal.sanitize import TerminalFilter, sanitize_line
from llm_local.terminal.streams import Messages

__all__ = ["ToolAnswer", "ToolQuestion"]

_TERMINAL: Final = "/dev/tty"
_LOOK_EVERY_S: Final = 0.1
_MAX_ANSWER_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """`always` means every further call of this tool."""

    allowed: bool
    always: bool = False


class ToolQuestion:
    """Decides each call: as `approve` says, or by asking. No terminal, no answer, and anything unclear mean no.

    `on_notice` gets what people should see; `stopped` says that a signal has come, and there is nothing to wait for.
    `terminal` replaces the real one in tests.
    """

    def __init__(
        self,
        messages: Messages,
        approve: str,
        *,
        on_notice: Callable[[str], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
        terminal: str = _TERMINAL,
    ) -> None:
        self._messages = messages
        self._approve = approve
        self._notice = messages.note if on_notice is None else on_notice
        self._stopped = stopped
        self._terminal = terminal
        self._told = False

    def ask(self, call: ToolCall, source: str) -> ToolAnswer:
        """The answer to one call."""
        if self._approve == "all":
            return ToolAnswer(True)
        if self._approve == "none":
            return ToolAnswer(False)
        try:
            descriptor = os.open(self._terminal, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            if not self._told:
                self._told = True
                self._notice(
                    "There is no terminal to ask on, so no call is allowed; --approve all allows every call."
                )
            return ToolAnswer(False)
        try:
            self._messages.status("")
            self._show(descriptor, call, source)
            return _understood(self._read(descriptor))
        except OSError:  # the terminal has gone
            return ToolAnswer(False)
        finally:
            os.close(descriptor)

    def _show(self, descriptor: int, call: ToolCall, source: str) -> None:
        """All of the call, so that nobody allows what they cannot see, in a form that moves no cursor."""
        shown = TerminalFilter()
        arguments = (
            shown.feed(json.dumps(dict(call.arguments), ensure_ascii=False, indent=2)) + shown.finish()
        )
        name = sanitize_line(call.name)
        text = (
            f"The model asks to run a tool: {name} ({sanitize_line(source)})\n{arguments}\n"
            f"Run it? y: yes, a: yes, and always {name} in this run, n or Enter: no. [y/a/N] "
        )
        # what was typed before the question is no answer to it
        with contextlib.suppress(termios.error):
            termios.tcflush(descriptor, termios.TCIFLUSH)
        rest = memoryview(text.encode("utf-8", "replace"))
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def _read(self, descriptor: int) -> str:
        """The line that is typed, or "" when there will be none."""
        line = b""
        while not self._stopped() and len(line) < _MAX_ANSWER_BYTES:
            ready, _, _ = select.select([descriptor], [], [], _LOOK_EVERY_S)
            if not ready:
                continue
            piece = os.read(descriptor, 1024)
            line += piece
            if not piece or b"\n" in piece:
                break
        if self._stopped():
            os.write(descriptor, b"\n")  # what is shown next stands on a line of its own
        return line.decode("utf-8", "replace") if line.endswith(b"\n") else ""


def _understood(line: str) -> ToolAnswer:
    word = line.strip().lower()
    if word in ("y", "yes"):
        return ToolAnswer(True)
    if word in ("a", "always"):
        return ToolAnswer(True, always=True)
    return ToolAnswer(False)
