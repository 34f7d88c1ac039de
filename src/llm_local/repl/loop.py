"""The loop of both REPLs: read, find out what is meant, do it, show it, until somebody leaves.

Ctrl-C is about what goes on: it stops an answer and keeps what came, clears the line that is typed, and leaves when it
comes twice within `TWICE_S` seconds to an empty line. Ctrl-D, and the end of a pipe, leave.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from llm_local.chat.commands import CommandContext, Question
from llm_local.chat.outcomes import Outcome, Reply
from llm_local.chat.session import ChatSession
from llm_local.errors import InvalidRequest
from llm_local.repl.commanding import Shows, parse
from llm_local.repl.drawing import Drawing
from llm_local.terminal.chat_front import ChatFront
from llm_local.terminal.chat_signals import ChatSignals, Ended
from llm_local.terminal.chat_view import Candidate, ChatStatus, PromptContext
from llm_local.terminal.exit_codes import INTERRUPTED, OK, exit_code
from llm_local.terminal.reply_notes import tokens_per_second

__all__ = ["TWICE_S", "ChatLoop"]

TWICE_S: Final = 2.0


class ChatLoop:
    """One chat. `complete` gives what may follow in a line; `clock` is monotonic, in seconds."""

    def __init__(
        self,
        context: CommandContext,
        front: ChatFront,
        signals: ChatSignals,
        *,
        shows: Shows,
        complete: Callable[[str], Sequence[Candidate]] = lambda line: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._front = front
        self._signals = signals
        self._complete = complete
        self._clock = clock
        self._drawing = Drawing(front, signals, shows)
        self._interrupted_s: float | None = None
        self._failed = OK

    @property
    def _session(self) -> ChatSession:
        return self._context.session

    def run(self) -> int:
        """Go on until somebody leaves, and return the exit code.

        What a person does wrong is no failure of the chat. In a pipe nobody sees it, so there the code is that of the
        first turn that failed.

        Raises:
            BrokenPipeError: the reader of the answers has gone.
            StorageError: stdout refused.
        """
        # all of it is work that a signal may end, so that none kills the chat between two things it does
        with self._signals.working():
            self._front.view.welcome(self.status())
            while True:
                code = self._turn()
                if code is None:
                    code = self._signals.code
                if code is not None:
                    for notice in self._session.leave():
                        self._front.view.notice(notice)
                    return code

    def status(self) -> ChatStatus:
        """Where the chat stands."""
        session = self._session
        conversation = session.conversation
        speeds = [tokens_per_second(one) for one in session.completions[-1:]]
        return ChatStatus(
            session.model.info,
            session.model.generator.runs_as,
            session.model.load_s,
            context_used=session.context_used,
            num_turns=session.num_turns,
            tokens_per_s=speeds[0] if speeds else None,
            title="" if conversation is None else conversation.title,
            is_stored=session.is_stored,
        )

    def _turn(self) -> int | None:
        """One input and what comes of it; the exit code when it was the last one."""
        interactive = self._front.input.interactive
        context = PromptContext(self.status(), self._complete)
        self._signals.forget()
        try:
            text = self._front.input.read(context)
        except EOFError:
            return self._failed
        except Ended:
            return self._signals.code
        except KeyboardInterrupt:
            return self._interrupted() if interactive else INTERRUPTED
        except InvalidRequest as error:
            self._front.view.error(error)
            self._remember(error)
            return None
        self._interrupted_s = None
        if not text.strip():
            return None
        try:
            goes_on = self._drawing.attempt(lambda: self._meant(text), context)
        except Ended:  # while a question was asked
            return self._signals.code
        self._remember(self._drawing.failure)
        if not goes_on:
            return self._failed
        # nobody is there to say what is wanted after a Ctrl-C
        return INTERRUPTED if self._signals.cancelled and not interactive else None

    def _meant(self, text: str) -> Outcome:
        said = parse(self._context.table, text)
        if isinstance(said, Question):
            return Reply(self._session.ask(said.text))
        return said.run(self._context)

    def _interrupted(self) -> int | None:
        """Ctrl-C with nothing typed."""
        now = self._clock()
        if self._interrupted_s is not None and now - self._interrupted_s <= TWICE_S:
            return INTERRUPTED
        self._interrupted_s = now
        self._front.view.notice("Ctrl-C again leaves, and so do Ctrl-D and /bye.")
        return None

    def _remember(self, failure: Exception | None) -> None:
        if failure is not None and not self._front.input.interactive and self._failed == OK:
            self._failed = exit_code(failure)
