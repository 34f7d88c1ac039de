"""An answer while it comes: an iterator of events that keeps what it has shown, however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from llm_local.errors import LocalLLMError
from llm_local.events import (
    Completion,
    Event,
    Finish,
    Timings,
    ToolEvent,
    ToolResult,
    ToolStarted,
    Usage,
    fold,
)
from llm_local.messages import Message

__all__ = ["ChatReply", "Recorder", "Source"]

_BROKEN_OFF = Finish("cancelled", Usage(), Timings())


class Source(Protocol):
    """Where the events come from: one reply, or a loop of replies and tools."""

    def __iter__(self) -> Iterator[Event | ToolEvent]: ...

    def cancel(self) -> None:
        """Ask for the end. Safe from a signal handler."""


class Recorder(Protocol):
    """Who keeps what comes."""

    def partial(self, message: Callable[[], Message]) -> None:
        """So much of a reply is there."""

    def called(self, reply: Completion) -> None:
        """A reply with calls is whole; their results follow."""

    def result(self, result: ToolResult) -> None:
        """What became of a call."""

    def ended(self, reply: Completion | None, whole: Completion) -> tuple[str, ...]:
        """It is over; `reply` is the last one, broken off where its reason is "cancelled", or None if there is none.

        `whole` has the counts and times of all. Returns lines that people should see.
        """


class ChatReply:
    """One answer of a session. Iterate it: events of replies and tools, and one `Finish`, last.

    The session keeps the answer when the last event is out, or the part of it that came when it is cancelled, closed,
    or fails. It belongs to one thread; only `cancel` may be called from elsewhere, signal handlers included.
    """

    def __init__(self, source: Source, recorder: Recorder, notices: Sequence[str] = ()) -> None:
        self._source = source
        self._recorder = recorder
        self._events = self._run()
        self._round: list[Event] = []  # of the reply that is coming, with its Finish when it is whole
        self._replies: list[Completion] = []
        self._cancelled = False
        self.is_over = False
        """Whether the session has kept it."""
        self.notices: tuple[str, ...] = tuple(notices)
        """Lines that people should see; there may be more of them when the answer is over."""
        self.completion: Completion | None = None
        """The answer, once it is over: its last reply, with the token counts and times of all. None if it failed."""

    def __iter__(self) -> Iterator[Event | ToolEvent]:
        return self

    def __next__(self) -> Event | ToolEvent:
        return next(self._events)

    def __enter__(self) -> ChatReply:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self) -> None:
        """Ask for the end: the events go on to `Finish("cancelled")` within one step."""
        self._cancelled = True
        self._source.cancel()

    def close(self) -> None:
        """Stop without showing the rest, and keep what came. Harmless when it is over."""
        if self.is_over:
            return
        self.cancel()
        with contextlib.suppress(LocalLLMError):
            for _ in self._events:
                pass
        self._end()  # where an interrupt has broken the iterator itself

    def _run(self) -> Iterator[Event | ToolEvent]:
        try:
            for event in self._source:
                if isinstance(event, Finish):
                    self._round.append(event)  # of one reply; whether it is the last, the next event tells
                    continue
                self._note(event)
                yield event
        except Exception:
            self._end()
            raise
        self.completion = whole = self._end()
        yield Finish(whole.finish_reason, whole.usage, whole.timings, whole.stop)

    def _note(self, event: Event | ToolEvent) -> None:
        if self._round and isinstance(self._round[-1], Finish):
            self._recorder.called(self._fold_round())
        if isinstance(event, ToolResult):
            self._recorder.result(event)
        elif not isinstance(event, ToolStarted):
            self._round.append(event)
            self._recorder.partial(self._partial)

    def _partial(self) -> Message:
        reply = fold([*self._round, _BROKEN_OFF])
        return Message(
            "assistant", reply.text, reasoning=reply.reasoning or None, tool_calls=reply.tool_calls
        )

    def _fold_round(self) -> Completion:
        """The reply that is coming, as far as it is there, which is then no longer coming."""
        reply = fold([*self._round, _BROKEN_OFF])
        self._replies.append(reply)
        self._round.clear()
        return reply

    def _end(self) -> Completion:
        if self.is_over:
            return self._whole()
        self.is_over = True
        # with calls answered there is nothing behind the results that was broken off
        reply = self._fold_round() if self._round or not self._replies else None
        whole = self._whole()
        self.notices += self._recorder.ended(reply, whole)
        return whole

    def _whole(self) -> Completion:
        last = self._replies[-1]
        times = [reply.timings for reply in self._replies]
        return replace(
            last,
            finish_reason="cancelled" if self._cancelled and last.tool_calls else last.finish_reason,
            usage=_sum_of([reply.usage for reply in self._replies]),
            timings=Timings(
                sum(one.queued_s for one in times),
                sum(one.load_s for one in times),
                sum(one.prefill_s for one in times),
                sum(one.decode_s for one in times),
                times[0].first_token_s,
            ),
        )


def _sum_of(usages: Sequence[Usage]) -> Usage:
    return Usage(
        sum(one.prompt_tokens for one in usages),
        sum(one.cached_tokens for one in usages),
        sum(one.completion_tokens for one in usages),
        sum(one.drafted_tokens for one in usages),
        sum(one.accepted_tokens for one in usages),
    )
