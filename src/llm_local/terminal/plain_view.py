"""What a chat says, with nothing but lines: the answer on stdout as it comes, all else where a person sees it.

No escape sequence is ever written. Into a pipe goes the answer and nothing else; on a terminal what commands show goes
to stdout too, so that it stays in order with the answers.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Sequence

from llm_local.errors import InvalidRequest
from llm_local.events import (
    Completion,
    ContextTrimmed,
    Delta,
    Event,
    Finish,
    Progress,
    ToolEvent,
    ToolResult,
    ToolStarted,
)
from llm_local.terminal.chat_view import ChatStatus, Choice
from llm_local.terminal.exit_codes import error_line
from llm_local.terminal.progress import ProgressReporter
from llm_local.terminal.reply_notes import end_note, statistics_line, trimmed_line
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.tables import aligned, fitted
from llm_local.terminal.thinking import ThinkingView
from llm_local.terminal.tool_run import tool_line

__all__ = ["PlainView"]


class PlainView:
    """A `ChatView` of lines. `read_line` asks a person for one line; it is None where there is no person."""

    def __init__(
        self,
        answer: AnswerWriter,
        messages: Messages,
        *,
        read_line: Callable[[str], str] | None = None,
        show_thinking: bool = False,
    ) -> None:
        self._answer = answer
        self._messages = messages
        self._read_line = read_line
        self._show_thinking = show_thinking
        self._reporter = ProgressReporter(messages)
        self._thinking = ThinkingView(messages, shown=show_thinking)
        self._line_open = False
        self._answered = False
        self._on_terminal = answer.on_terminal and read_line is not None

    def welcome(self, status: ChatStatus) -> None:
        """Say who answers; only to a person."""
        if self._read_line is None:
            return
        info = status.info
        stored_as = info.dtype if info.quantization == "none" else info.quantization
        self._tell(
            f"{info.ref}: {info.num_parameters:,} parameters, {stored_as}, on {info.device}, "
            f"context {info.context_length} tokens, loaded in {status.load_s:.1f} s"
        )
        if status.goes_on:
            self._tell(f"The conversation goes on: {status.goes_on}")
        if not status.is_stored:
            self._tell("Nothing of this chat is stored.")
        self._tell('/help lists the commands, """ begins and ends several lines, Ctrl-D leaves.\n\n')

    def progress(self, progress: Progress) -> None:
        """Show how far it is, in a line that changes or now and then a line."""
        self._reporter(progress)

    def suspend(self) -> None:
        """Take the changing line away."""
        self._reporter.close()
        self._thinking.close()
        self._end_line()

    def begin_reply(self) -> None:
        """Get ready for an answer."""
        self._thinking = ThinkingView(self._messages, shown=self._show_thinking)
        self._line_open = self._answered = False

    def show(self, event: Event | ToolEvent) -> None:
        """Write what came."""
        if isinstance(event, Progress):
            self._reporter(event)
        elif isinstance(event, Delta):
            self._reporter.close()
            self._thinking.show(event)
            if event.channel == "content" and event.text:
                self._answer.write(event.text)
                self._line_open = self._answered = True
        elif isinstance(event, ToolStarted):
            self.suspend()
            self._messages.status(f"running {event.call.name}")
        elif isinstance(event, ToolResult):
            # what a tool prints lies in a buffer that nobody empties when the process leaves
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            self.suspend()
            self._messages.note(tool_line(event))
        elif isinstance(event, ContextTrimmed):
            self.notice(trimmed_line(event))
        elif isinstance(event, Finish):
            self.suspend()

    def end_reply(self, completion: Completion | None, *, verbose: bool = False) -> None:
        """End the line of the answer, and say what there is to say of it."""
        self.suspend()
        if completion is not None and not self._answered and completion.finish_reason != "cancelled":
            self._answer.write("\n")  # an empty answer is a line too
        if completion is not None:
            note = end_note(completion)
            for line in (f"[{note}]" if note else "", statistics_line(completion) if verbose else ""):
                if line:
                    self._messages.note(line)
        if self._on_terminal:
            self._answer.write("\n")

    def begin_beside(self, titles: Sequence[str]) -> bool:
        """No: lines are written as they come."""
        return False

    def end_beside(self) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """One line on stderr."""
        self.suspend()
        self._messages.note(text)

    def lines(self, lines: Sequence[str]) -> None:
        """Lines that a command says."""
        for line in lines:
            self._tell(line)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """An aligned table below its title, no wider than the terminal."""
        if title:
            self._tell(title)
        if not rows:
            self._tell("(none)")
        elif self._on_terminal:
            self._tell(fitted(columns, rows, shutil.get_terminal_size().columns))
        else:
            self._tell(aligned(columns, rows))

    def markdown(self, text: str) -> None:
        """The text as it is: Markdown is made to be read so."""
        self._tell(text)

    def verbatim(self, text: str) -> None:
        """The text as it is."""
        self._tell(text)

    def copy(self, text: str) -> bool:
        """No: only an escape sequence could."""
        return False

    def error(self, error: BaseException) -> None:
        """One line on stderr."""
        self.suspend()
        self._messages.note(error_line(error))

    def clear(self) -> None:
        """Nothing: it takes an escape sequence."""

    def ask(self, question: str) -> bool:
        """Ask a person; yes is what begins with y."""
        if self._read_line is None:
            return False
        self.suspend()
        try:
            return self._read_line(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt):
            return False

    def choose(self, title: str, columns: Sequence[str], choices: Sequence[Choice]) -> str | None:
        """A numbered table, and a question for the number or the name."""
        if self._read_line is None:
            raise InvalidRequest("There is no terminal to choose on.", "Name it instead.", param="choose")
        current = next((one for one in choices if one.is_current), None)
        rows = [(f"{at}{'*' * one.is_current}", *one.cells) for at, one in enumerate(choices, 1)]
        self.table(title, ("", *columns), rows)
        hint = f", Enter for {current.value}" if current else ""
        try:
            while True:
                said = self._read_line(f"Number or name{hint}: ").strip()
                if not said:
                    return current.value if current else None
                chosen = _chosen(said, choices)
                if chosen is not None:
                    return chosen
                self._tell(f"There is no {said}; the numbers are 1 to {len(choices)}.")
        except (EOFError, KeyboardInterrupt):
            return None

    def close(self) -> None:
        """End what is begun."""
        with contextlib.suppress(Exception):
            self.suspend()

    def _tell(self, text: str) -> None:
        """What a command shows, harmless: on stdout beside the answers, or on stderr where those go into a pipe."""
        self.suspend()
        if self._on_terminal:
            self._answer.write(text)
            self._answer.end()
        else:
            self._messages.block(text)

    def _end_line(self) -> None:
        if self._line_open:
            self._line_open = False
            self._answer.end()


def _chosen(said: str, choices: Sequence[Choice]) -> str | None:
    if said.isdecimal() and 1 <= int(said) <= len(choices):
        return choices[int(said) - 1].value
    return next((one.value for one in choices if one.value == said), None)
