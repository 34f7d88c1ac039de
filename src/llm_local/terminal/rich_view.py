"""What a chat says, drawn with all that a terminal can do: Markdown, tables, panels, colors, a spinner.

Everything but our own words is foreign, and shows its controls instead of sending them.
"""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.cells import cell_len
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

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
from llm_local.terminal.blocks import markdown_rows
from llm_local.terminal.busy_rows import BusyRows
from llm_local.terminal.chat_view import ChatStatus, Choice
from llm_local.terminal.exit_codes import error_line
from llm_local.terminal.reply_notes import end_note, statistics_line, trimmed_line
from llm_local.terminal.rich_beside import LEAST_COLUMN_WIDTH, AnswersBeside
from llm_local.terminal.rich_input import RichInput
from llm_local.terminal.rich_reply import RichReply
from llm_local.terminal.rich_screen import RichScreen
from llm_local.terminal.sanitize import TerminalFilter, sanitize_line
from llm_local.terminal.tool_run import tool_line

__all__ = ["RichView"]

_DIM: Final = Style(dim=True)
_NOTICE: Final = Style(color="yellow")
_ERROR: Final = Style(color="bright_red", bold=True)
_NAME: Final = Style(color="bright_magenta", bold=True)
_FRAME: Final = Style(color="cyan")
_TITLE: Final = Style(bold=True)
_MIN_COLUMN_WIDTH: Final = 8
# More than this no terminal takes for its clipboard.
_MAX_COPIED_CHARS: Final = 70_000


class RichView:
    """A `ChatView` that draws on `screen` and asks by `said`."""

    def __init__(self, screen: RichScreen, said: RichInput, *, show_thinking: bool = True) -> None:
        self._screen = screen
        self._said = said
        self._show_thinking = show_thinking
        self._busy = BusyRows()
        self._reply = RichReply(screen, show_thinking=show_thinking)
        self._beside: AnswersBeside | None = None

    def welcome(self, status: ChatStatus) -> None:
        """Who answers, and the keys."""
        info = status.info
        facts = f"{info.num_parameters:,} parameters · {info.quantization} · {info.dtype} on {info.device}"
        text = Text.assemble((sanitize_line(info.ref), _NAME), "\n", facts, "\n")
        text.append(f"context {info.context_length:,} tokens · {sanitize_line(status.runs_as)} · ")
        text.append(f"loaded in {status.load_s:.1f} s\n")
        if status.goes_on:
            text.append(f"goes on: {sanitize_line(status.goes_on)}\n", _NOTICE)
        if not status.is_stored:
            text.append("Nothing of this chat is stored.\n", _NOTICE)
        text.append(f"{self._said.keys_line}\n/help lists the commands and Ctrl-D leaves.", _DIM)
        if self._screen.is_narrow:
            self._screen.say(text)
        else:
            self._screen.draw(
                Panel(text, box=box.ROUNDED, border_style=_FRAME, expand=False, title="llm-local")
            )
        self._screen.put([""])

    def progress(self, progress: Progress) -> None:
        """A spinner with bars, while something is not complete."""
        if self._busy.add(progress):
            self._screen.busy(self._busy.rows)
        else:
            self._screen.clear()

    def suspend(self) -> None:
        """Take away all that moves; an answer that has begun stays."""
        self._reply.finish()
        self._screen.clear()

    def begin_reply(self) -> None:
        """Get ready for an answer, with a row between it and the question."""
        self._reply = RichReply(self._screen, show_thinking=self._show_thinking)
        if self._beside is not None:
            self._screen.busy(self._beside.state)
        else:
            self._screen.put([""])

    def show(self, event: Event | ToolEvent) -> None:
        """Draw what came."""
        if self._beside is not None:
            if isinstance(event, Delta):
                self._beside.count(len(event.token_ids))
            elif isinstance(event, ContextTrimmed):
                self.notice(trimmed_line(event))
            self._screen.busy(self._beside.state)
        elif isinstance(event, Delta):
            self._reply.show(event)
        elif isinstance(event, Progress):
            self.progress(event)
        elif isinstance(event, ToolStarted):
            self.suspend()
            name = sanitize_line(event.call.name)
            self._screen.busy(lambda: [Text(f"running {name}")])
        elif isinstance(event, ToolResult):
            # what a tool prints lies in a buffer that nobody empties when the process leaves
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            self.suspend()
            self._screen.say(Text(f"⚙ {sanitize_line(tool_line(event))}", _DIM))
        elif isinstance(event, ContextTrimmed):
            self.notice(trimmed_line(event))
        elif isinstance(event, Finish):
            self.suspend()

    def end_reply(self, completion: Completion | None, *, verbose: bool = False) -> None:
        """What there is to say of an answer, below it."""
        self.suspend()
        if self._beside is not None:
            self._beside.add(completion)
            return
        if completion is not None:
            note = end_note(completion)
            if note:
                self._screen.say(Text(f"[{note}]", _NOTICE))
            if verbose:
                self._screen.say(Text(statistics_line(completion), _DIM))
        self._screen.put([""])

    def begin_beside(self, titles: Sequence[str]) -> bool:
        """Collect the answers, where the terminal is wide enough for them."""
        if self._screen.width < LEAST_COLUMN_WIDTH * len(titles):
            return False
        self.suspend()
        self._beside = AnswersBeside(titles)
        return True

    def end_beside(self) -> None:
        """Draw what was collected."""
        self.suspend()
        beside, self._beside = self._beside, None
        if beside is not None:
            self._screen.put(["", *beside.rows(self._screen.maker, self._screen.width), ""])

    def notice(self, text: str) -> None:
        """One line."""
        self.suspend()
        self._screen.say(Text(sanitize_line(text), _NOTICE))

    def lines(self, lines: Sequence[str]) -> None:
        """Lines that a command says."""
        self.suspend()
        for line in lines:
            self._screen.say(Text(sanitize_line(line)))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table in a frame; where there is no room for it, a line for each cell."""
        self.suspend()
        heading = sanitize_line(title)
        if not rows:
            self._screen.say(Text.assemble((heading, _TITLE), " " if heading else "", ("(none)", _DIM)))
        elif len(columns) * (_MIN_COLUMN_WIDTH + 3) + 1 > self._screen.width:
            self._stacked(heading, columns, rows)
        else:
            self._screen.draw(_framed(heading, columns, rows, self._screen.width))

    def markdown(self, text: str) -> None:
        """A text in Markdown, as an answer looks."""
        self.suspend()
        self._screen.put(markdown_rows(text, self._screen.width, self._screen.maker))

    def verbatim(self, text: str) -> None:
        """The text as it is; the terminal breaks long lines, so that they are copied whole."""
        self.suspend()
        shown = TerminalFilter()
        self._screen.put((shown.feed(text) + shown.finish()).removesuffix("\n").split("\n"))

    def copy(self, text: str) -> bool:
        """Ask the terminal to put it into the clipboard; no when it is more than one takes."""
        if len(text) > _MAX_COPIED_CHARS:
            return False
        data = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
        self._screen.send(f"\x1b]52;c;{data}\x07")
        return True

    def error(self, error: BaseException) -> None:
        """One line, in red."""
        self.suspend()
        self._screen.say(Text(sanitize_line(error_line(error)), _ERROR))

    def clear(self) -> None:
        """Empty the screen."""
        self.suspend()
        self._screen.clear_all()

    def ask(self, question: str) -> bool:
        """Yes is what begins with y."""
        self.suspend()
        try:
            said = self._said.ask(f"{sanitize_line(question)} [y/N] ")
        except (EOFError, KeyboardInterrupt):
            return False
        return said.strip().lower() in ("y", "yes")

    def choose(self, title: str, columns: Sequence[str], choices: Sequence[Choice]) -> str | None:
        """A list to go up and down in."""
        self.suspend()
        try:
            return self._said.choose(sanitize_line(title), columns, choices)
        except (EOFError, KeyboardInterrupt):
            return None

    def close(self) -> None:
        """Take away what changes."""
        with contextlib.suppress(Exception):
            self.suspend()

    def _stacked(self, heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if heading:
            self._screen.say(Text(heading, _TITLE))
        for number, row in enumerate(rows):
            if number:
                self._screen.put([""])
            for column, cell in zip(columns, row, strict=False):
                if not cell:
                    continue
                lead = f"{sanitize_line(column)}: " if column else ""
                self._screen.say(Text.assemble((lead, _TITLE), sanitize_line(cell)))


def _framed(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """The table in a frame. Where it is too wide, the column with the longest cell gets what the others can spare."""
    longest = [
        max(cell_len(sanitize_line(row[at])) for row in (columns, *rows)) for at in range(len(columns))
    ]
    is_tight = sum(longest) + 3 * len(columns) + 1 > width
    table = Table(box=box.ROUNDED, border_style=_FRAME, title=Text(heading, _TITLE) if heading else None)
    table.title_justify = "left"
    table.show_header = any(columns)
    for at, column in enumerate(columns):
        spares = is_tight and at != longest.index(max(longest))
        max_width = max(_MIN_COLUMN_WIDTH, width // (len(columns) + 1)) if spares else None
        table.add_column(Text(sanitize_line(column)), overflow="fold", min_width=6, max_width=max_width)
    for row in rows:
        table.add_row(*(Text(sanitize_line(cell)) for cell in row))
    return table
