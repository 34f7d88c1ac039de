"""What a command comes to, on the screen. One branch for each kind of outcome."""

from __future__ import annotations

from collections.abc import Callable

from llm_local.chat.compare import Begun, Comparison
from llm_local.chat.compare import Ended as CompareEnded
from llm_local.chat.outcomes import (
    Ask,
    Cleared,
    Compared,
    Copied,
    Edit,
    Leave,
    Outcome,
    Reply,
    Said,
    Shown,
    Text,
)
from llm_local.errors import InvalidRequest
from llm_local.repl.commanding import Shows
from llm_local.repl.replies import show_answer
from llm_local.terminal.chat_front import ChatFront
from llm_local.terminal.chat_signals import ChatSignals
from llm_local.terminal.chat_view import PromptContext

__all__ = ["Drawing"]


class Drawing:
    """Shows outcomes, with what `shows` says beside them."""

    def __init__(self, front: ChatFront, signals: ChatSignals, shows: Shows) -> None:
        self._front = front
        self._signals = signals
        self._shows = shows
        self.failure: Exception | None = None
        """What went wrong in the last attempt."""

    def attempt(self, run: Callable[[], Outcome], context: PromptContext) -> bool:
        """Do something and show what comes of it; False when somebody wants to leave.

        Whatever fails is shown and the chat goes on, also where a plug-in's command has a bug.

        Raises:
            BrokenPipeError, StorageError: it cannot be shown.
        """
        self.failure = None
        try:
            outcome = run()
        except Exception as error:
            self._fail(error)
            return True
        return self._draw(outcome, context)

    def _draw(self, outcome: Outcome, context: PromptContext) -> bool:
        view = self._front.view
        match outcome:
            case Leave():
                return False
            case Said(lines):
                view.lines(lines)
            case Shown(title, columns, rows, notes):
                view.table(title, columns, rows)
                view.lines(notes)
            case Text(text, is_markdown):
                (view.markdown if is_markdown else view.verbatim)(text)
            case Cleared(lines):
                view.clear()
                view.lines(lines)
            case Copied(text, what):
                copied = view.copy(text)
                view.notice(f"Copied {what}." if copied else f"This terminal cannot copy {what}.")
            case Reply(reply, lines):
                view.lines(lines)
                self.failure = show_answer(reply, view, self._signals, verbose=self._shows.verbose)
            case Compared(comparison):
                self._compare(comparison)
                return self._draw(comparison.table(), context)
            case Ask(question) if not self._front.input.interactive:
                self._fail(InvalidRequest(question, "Nobody is there to say yes, so it was not done."))
            case Ask(question, on_yes, on_no):
                return self.attempt(on_yes if view.ask(question) else lambda: on_no, context)
            case Edit():
                return self._edit(outcome, context)
        return True

    def _edit(self, outcome: Edit, context: PromptContext) -> bool:
        if not self._front.input.can_edit:
            self._front.view.lines(outcome.lines)
            return True
        initial = PromptContext(context.status, context.complete, initial=outcome.text)
        try:
            text = self._front.input.read(initial)
        except (EOFError, KeyboardInterrupt):
            text = ""
        if not text.strip():
            self._front.view.notice("Nothing was changed.")
            return True
        return self.attempt(lambda: outcome.submit(text), context)

    def _compare(self, comparison: Comparison) -> None:
        view = self._front.view
        is_beside = view.begin_beside([one.label for one in comparison.contestants])
        with self._signals.working(comparison.cancel):
            for event in comparison:
                if isinstance(event, Begun):
                    if not is_beside:
                        view.notice(f"{event.index} of {event.total}: {event.label}")
                    view.begin_reply()
                elif isinstance(event, CompareEnded):
                    view.end_reply(event.row.completion)
                    if event.row.error:
                        view.notice(event.row.error)
                else:
                    view.show(event)
        if is_beside:
            view.end_beside()

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._front.view.error(error)
