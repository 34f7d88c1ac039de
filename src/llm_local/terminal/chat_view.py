"""What a chat needs of a terminal: something that reads what a person says, and something that draws what comes back.

Two protocols, implemented twice: by the `plain_*` modules with nothing but lines, by the `rich_*` modules with a
terminal's full range. The loop of the REPLs (`repl/loop.py`) knows these protocols and none of the implementations.
No method is called from a signal handler, and all from one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_local.events import Completion, Event, Progress, ToolEvent
from llm_local.specs import ModelInfo

__all__ = ["Candidate", "ChatInput", "ChatStatus", "ChatView", "Choice", "PromptContext"]


@dataclass(frozen=True, slots=True)
class ChatStatus:
    """Where a chat stands: what a welcome, a toolbar or a window title may show.

    Counts are tokens. `context_used` is None while nothing has been asked, `tokens_per_s` (of the last answer) while
    there is none. `title` is the conversation's, "" for a new one; `is_stored` is False where nothing is written.
    """

    info: ModelInfo
    runs_as: str
    load_s: float
    context_used: int | None = None
    num_turns: int = 0
    tokens_per_s: float | None = None
    title: str = ""
    is_stored: bool = True

    @property
    def goes_on(self) -> str:
        """The conversation that is gone on with, in a line; "" for a new one."""
        turns = "1 turn" if self.num_turns == 1 else f"{self.num_turns} turns"
        return f"{self.title} ({turns})" if self.title else ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to go on with a line: `text` takes the place of its last `replaces` characters."""

    text: str
    replaces: int
    help: str = ""


@dataclass(frozen=True, slots=True)
class PromptContext:
    """What may help to type the next input.

    `complete` gives the candidates for a line up to the cursor; `initial` is text to begin with, for editing.
    """

    status: ChatStatus | None = None
    complete: Callable[[str], Sequence[Candidate]] = lambda line: ()
    initial: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A row of a menu: what is chosen, what people read of it, and whether it is the one in use."""

    value: str
    cells: tuple[str, ...]
    is_current: bool = False


class ChatInput(Protocol):
    """Reads what a person, or a pipe, says."""

    @property
    def interactive(self) -> bool:
        """True when a person types; False for a pipe or a file, where each line is one turn."""

    @property
    def can_edit(self) -> bool:
        """True when `PromptContext.initial` is put into the line."""

    def read(self, context: PromptContext) -> str:
        """The next input, of one or several lines, without its last line end. It may be empty.

        Text that is no valid UTF-8 comes with U+FFFD in it; control characters come as they are.

        Raises:
            EOFError: Ctrl-D, or the end of the pipe.
            KeyboardInterrupt: Ctrl-C with nothing typed. (Ctrl-C with text in the line clears it and reads on.)
            InvalidRequest: the input is too large; what was read of it is dropped.
        """

    def close(self) -> None:
        """Save what has to be saved and give the terminal back as it was. Harmless when repeated."""


class ChatView(Protocol):
    """Draws what a chat says. All text but its own is foreign, and is made harmless here.

    A method that cannot write raises BrokenPipeError (the reader has gone) or StorageError.
    """

    def welcome(self, status: ChatStatus) -> None:
        """The model is ready, and the first prompt follows."""

    def progress(self, progress: Progress) -> None:
        """How far a download, a load or the reading of a prompt is. Comes often; the view shows it now and then."""

    def suspend(self) -> None:
        """Take away all that moves: somebody else writes to the terminal now, or nothing happens any more."""

    def begin_reply(self) -> None:
        """An answer is coming; `show` follows, and then `end_reply`, always."""

    def show(self, event: Event | ToolEvent) -> None:
        """The next event of the answer, in order; all kinds, also Progress and Finish.

        With tools there are several replies in one answer, each with its own Finish.
        """

    def end_reply(self, completion: Completion | None, *, verbose: bool = False) -> None:
        """The answer is over. A finish reason of `cancelled` is marked; None: it failed, and `error` follows.

        `verbose` asks for the statistics: tokens per second, prompt tokens and how many of them were cached, times.
        """

    def begin_beside(self, titles: Sequence[str]) -> bool:
        """Several answers to one question follow, and are to be drawn side by side by `end_beside`, which always comes.

        False where there is no room for that: then they are drawn one after the other, and `end_beside` is not called.
        """

    def end_beside(self) -> None:
        """The last of the answers that `begin_beside` announced is over."""

    def notice(self, text: str) -> None:
        """One line that people should see, and programs need not."""

    def lines(self, lines: Sequence[str]) -> None:
        """What a command has to say."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """What a command has to list; `rows` may be empty, `title` too."""

    def markdown(self, text: str) -> None:
        """What a command has to show: a text in Markdown, perhaps by a model."""

    def verbatim(self, text: str) -> None:
        """What a command has to show exactly as it is, such as a prompt."""

    def copy(self, text: str) -> bool:
        """Put a text of ours or of a model into the clipboard; False where this terminal cannot."""

    def error(self, error: BaseException) -> None:
        """What went wrong, in one line; the chat goes on."""

    def clear(self) -> None:
        """Clear the screen, where there is one."""

    def ask(self, question: str) -> bool:
        """A question to answer with yes or no. Without a person, and at Ctrl-C or Ctrl-D, no."""

    def choose(self, title: str, columns: Sequence[str], choices: Sequence[Choice]) -> str | None:
        """Have one of some choices picked: its value, or None where nobody picked.

        Raises:
            InvalidRequest: there is no person to ask.
        """

    def close(self) -> None:
        """Give the terminal back as it was. Harmless when repeated, and after a failure."""
