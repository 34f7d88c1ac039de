"""What is said to a chat, with nothing but lines: typed on a terminal, or piped in, a turn for each line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from llm_local.errors import InvalidRequest
from llm_local.terminal.chat_signals import ChatSignals, Ended
from llm_local.terminal.chat_view import PromptContext
from llm_local.terminal.line_editor import LineEditor, load_line_editor
from llm_local.terminal.multiline import QUOTES, InputAssembler
from llm_local.terminal.piped_input import MAX_INPUT_BYTES
from llm_local.terminal.sanitize import show_controls
from llm_local.terminal.sizes import format_bytes
from llm_local.terminal.streams import STDIN, Messages
from llm_local.terminal.terminal_modes import TerminalModes

__all__ = ["CONTINUE", "PROMPT", "PlainInput", "may_use_escapes"]

PROMPT: Final = "> "
CONTINUE: Final = ". "
_CHUNK_BYTES: Final = 1 << 16
# So much of a line a terminal keeps when it edits lines itself; what is typed beyond that is lost.
_MAX_TERMINAL_LINE: Final = 4095


def may_use_escapes() -> bool:
    """True when stdin and stdout are a terminal on which escape sequences are welcome."""
    plain = os.environ.get("TERM", "dumb") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return not plain and all(os.isatty(descriptor) for descriptor in (0, 1))


class PlainInput:
    """Reads stdin. On a terminal a prompt is shown, and lines can be edited where that is welcome."""

    def __init__(
        self,
        messages: Messages,
        signals: ChatSignals,
        modes: TerminalModes,
        *,
        descriptor: int = STDIN,
        editor: Callable[[], LineEditor | None] = load_line_editor,
    ) -> None:
        self._messages = messages
        self._signals = signals
        self._modes = modes
        self._descriptor = descriptor
        self._assembler = InputAssembler()
        self._buffer = bytearray()
        self._ended = False
        self._typed = False
        self._told = False
        self._num_bytes = 0
        self.interactive = os.isatty(descriptor)
        self._editor = editor() if self.interactive and may_use_escapes() else None
        modes.uses_escapes = self._editor is not None

    @property
    def can_edit(self) -> bool:
        """True when lines are edited here and not by the terminal."""
        return self._editor is not None

    def read(self, context: PromptContext) -> str:
        """The next input; see `ChatInput`."""
        initial = context.initial
        while True:
            try:
                line = self._line(CONTINUE if self._assembler.is_open else PROMPT, context, initial)
            except EOFError:
                return self._unfinished()
            except KeyboardInterrupt:
                if not self._assembler.is_open and not self._typed:
                    raise
                self._assembler.drop()
                line = None
            initial = ""
            text = None if line is None else self._assembled(line)
            if text is not None:
                return text

    def close(self) -> None:
        """Give the terminal back."""
        self._modes.restore()

    def ask(self, question: str) -> str:
        """One line, behind a question, which is shown harmless; it is no part of the chat. Raises as `read` does."""
        return self._line(show_controls(question), PromptContext(), "")

    def _line(self, prompt: str, context: PromptContext, initial: str) -> str:
        """One line, decoded."""
        self._typed = False
        try:
            with self._signals.reading(self._look):
                if self._editor is not None:
                    self._modes.show_typing()
                    return self._editor.read(prompt, context.complete, initial)
                if self.interactive:
                    self._messages.piece(prompt)
                return self._decoded(self._read_line())
        except (EOFError, KeyboardInterrupt, Ended):
            self._end_line()
            raise
        finally:
            self._modes.hush()

    def _end_line(self) -> None:
        """What is shown next stands on a line of its own."""
        if self._editor is not None:
            self._editor.end_line()
        elif self.interactive:
            self._messages.piece("\n")

    def _look(self) -> None:
        """Ctrl-C was pressed: is it about what stands in the line? A terminal that edits lines itself does not tell."""
        self._typed = self._editor is not None and self._editor.has_text

    def _assembled(self, line: str) -> str | None:
        self._num_bytes = len(line) + (self._num_bytes if self._assembler.is_open else 0)
        text = self._assembler.feed(line)
        if self._num_bytes > MAX_INPUT_BYTES:
            self._assembler.drop()
            # nobody knows where an input ends whose end mark may never come
            if text is None and not self.interactive:
                self._stop()
            raise _too_large("Nothing after it was read." if self._ended else "Send a part of it.")
        if text is not None and self._editor is not None:
            self._editor.remember(text)
        return text

    def _unfinished(self) -> str:
        """What there is of an input when its end did not come; else EOFError goes on."""
        text = self._assembler.finish()
        if text is None:
            raise EOFError
        self._messages.note(f"The input ended before {QUOTES} closed it; it is taken as it is.")
        return text

    def _read_line(self) -> bytes:
        """Up to a line end, or up to the end of everything."""
        begun = 0
        while True:
            end = self._buffer.find(b"\n", begun)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return self._checked(line)
            if self._ended:
                raise EOFError
            begun = len(self._buffer)
            if begun > MAX_INPUT_BYTES:
                self._skip_line()
                raise _too_large("Send a part of it.")
            chunk = self._read_chunk()
            self._buffer += chunk
            if not chunk:
                self._ended = not self.interactive
                if not self._buffer:
                    raise EOFError
                line = bytes(self._buffer)
                self._buffer.clear()
                return self._checked(line)

    def _stop(self) -> None:
        """Read nothing more."""
        self._ended = True
        self._buffer.clear()

    def _read_chunk(self) -> bytes:
        try:
            return os.read(self._descriptor, _CHUNK_BYTES)
        except OSError as error:
            self._ended = True  # a directory, or a terminal that hung up: there is nothing more to come
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise InvalidRequest(f"Cannot read stdin: {reason}.", param="prompt") from error

    def _skip_line(self) -> None:
        """Drop what follows up to a line end."""
        while True:
            self._buffer.clear()
            chunk = self._read_chunk()
            if not chunk:
                self._ended = not self.interactive
                return
            _, mark, rest = chunk.partition(b"\n")
            if mark:
                self._buffer += rest
                return

    def _checked(self, line: bytes) -> bytes:
        if self.interactive and len(line) >= _MAX_TERMINAL_LINE:
            raise InvalidRequest(
                f"This terminal passes on {_MAX_TERMINAL_LINE} bytes of a line, so this one was cut.",
                "Read it from a file with /read, or pipe it in.",
                param="prompt",
            )
        if b"\0" in line and not self.interactive:
            self._stop()
            raise InvalidRequest(
                "stdin is no text, since it has a NUL character; nothing after it was read.",
                "Pipe in UTF-8 text, a turn on each line.",
                param="prompt",
            )
        return line

    def _decoded(self, line: bytes) -> str:
        text = line.decode("utf-8-sig", "replace").removesuffix("\r")
        if "\ufffd" in text and "\ufffd".encode() not in line and not self._told:
            self._told = True
            self._messages.note("stdin contains bytes that are not UTF-8; they are replaced by U+FFFD.")
        return text


def _too_large(hint: str) -> InvalidRequest:
    allowed = f"{MAX_INPUT_BYTES} bytes ({format_bytes(MAX_INPUT_BYTES)})"
    return InvalidRequest(f"One input may have at most {allowed}, but this has more.", hint, param="prompt")
