"""An answer while it comes: shown event by event, stopped by Ctrl-C, ended in order whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from llm_local.events import Completion, Event, ToolEvent
from llm_local.terminal.chat_signals import ChatSignals
from llm_local.terminal.chat_view import ChatView

__all__ = ["Answer", "show_answer"]


class Answer(Protocol):
    """An answer that comes: `chat.reply.ChatReply`."""

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that people should see; there may be more of them at the end."""

    @property
    def completion(self) -> Completion | None:
        """The answer, once it is over."""

    def __iter__(self) -> Iterator[Event | ToolEvent]: ...

    def cancel(self) -> None:
        """Ask for the end. Safe from a signal handler."""

    def close(self) -> None:
        """Stop, and keep what came."""


def show_answer(answer: Answer, view: ChatView, signals: ChatSignals, *, verbose: bool) -> Exception | None:
    """Show it to its end; gives what went wrong on the way, which is shown too.

    What stdout or the terminal refuses is raised, after what came of the answer is kept.
    """
    told = answer.notices
    for notice in told:
        view.notice(notice)
    failure: Exception | None = None
    try:
        with signals.working(answer.cancel):
            view.begin_reply()
            events = iter(answer)
            while True:
                try:
                    event = next(events)
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                    break
                view.show(event)
    except BaseException:
        answer.close()
        raise
    view.end_reply(answer.completion, verbose=verbose)
    if failure is not None:
        view.error(failure)
    for notice in answer.notices[len(told) :]:
        view.notice(notice)
    return failure
