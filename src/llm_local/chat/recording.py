"""What becomes of an answer: entries of the conversation, and drafts in the archive while it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from llm_local.chat.saving import Saver
from llm_local.chat.turns import Entry, is_unanswered
from llm_local.conversations.records import ReplyFacts, ReplyStatus
from llm_local.events import Completion, ToolResult
from llm_local.messages import Message

__all__ = ["Place", "Recording"]

NOTHING_CAME: Final = (
    "Nothing was answered, so the model will not see this question again; /retry asks it again."
)
OLD_STAYS: Final = "Nothing new came, so the answer that was there stays."


class Place:
    """Where an answer goes: behind `before`, in place of `old` as soon as there is something of it.

    `goes_on` is the first part of an answer that is continued, which is then the only one in `old`.
    """

    def __init__(
        self, before: Sequence[Entry], old: Sequence[Entry] = (), goes_on: Entry | None = None
    ) -> None:
        self.before = list(before)
        self.old = list(old)
        self.goes_on = goes_on


class Recording:
    """Satisfies `chat.reply.Recorder` for one answer."""

    def __init__(
        self,
        saver: Saver,
        place: Place,
        *,
        model: str,
        seed: int | None,
        keep: Callable[[list[Entry], Completion, Completion | None], tuple[str, ...]],
    ) -> None:
        """`keep` takes all entries, the whole answer and its last part, and gives lines that people should see."""
        self._saver = saver
        self._model = model
        self._seed = seed
        self._keep = keep
        self._entries = list(place.before)
        self._old = list(place.old)
        self._goes_on = place.goes_on
        self._begun = False
        self._drafting = False

    def begin(self) -> list[Entry]:
        """The question is accepted: store it, and give the conversation as it is now."""
        self._begun = True
        whole = self._entries + self._old
        self._saver.sync(whole, self._model)
        self._begin_draft()
        return whole

    def partial(self, message: Callable[[], Message]) -> None:
        """So much of a reply is there."""
        if not self._drafting:
            self._begin_draft()
        self._saver.update(lambda: self._joined(message()))

    def called(self, reply: Completion) -> None:
        """A reply with calls is whole; their results follow."""
        self._add(reply)

    def result(self, result: ToolResult) -> None:
        """What became of a call."""
        message = Message("tool", result.text, name=result.call.name, tool_call_id=result.call.id)
        self._entries.append(Entry(message))
        self._saver.sync(self._entries, self._model)

    def ended(self, reply: Completion | None, whole: Completion) -> tuple[str, ...]:
        """It is over; `reply` is the last one, or None if there is none behind the results of tools."""
        if not self._begun:  # the question itself was refused
            return ()
        notices: tuple[str, ...] = ()
        empty = reply is None or is_unanswered(self._entry(reply, alone=True))
        if not empty and reply is not None:
            self._add(reply)
        elif self._old:
            self._entries += self._old
            self._saver.end_reply(self._entries, self._model, is_new=False)
            notices = (NOTHING_CAME if is_unanswered(self._entries[-1]) else OLD_STAYS,)
        elif reply is None or self._entries[-1].message.role == "tool":
            self._saver.end_reply(self._entries, self._model, is_new=False)
        else:
            self._add(reply)
            notices = (NOTHING_CAME,)
        return notices + self._keep(self._entries, whole, reply) + self._saver.take_notices()

    def _begin_draft(self) -> None:
        self._drafting = True
        self._saver.begin_reply(self._model, len(self._entries) if self._old else None)

    def _add(self, reply: Completion) -> None:
        self._entries.append(self._entry(reply))
        self._old.clear()
        self._drafting = False
        self._saver.end_reply(self._entries, self._model)
        self._goes_on = None

    def _entry(self, reply: Completion, *, alone: bool = False) -> Entry:
        message = Message(
            "assistant", reply.text, reasoning=reply.reasoning or None, tool_calls=reply.tool_calls
        )
        facts = ReplyFacts(self._model, reply.finish_reason, reply.usage, reply.timings, self._seed)
        status: ReplyStatus = "interrupted" if reply.finish_reason == "cancelled" else "complete"
        return Entry(message if alone else self._joined(message), status, facts)

    def _joined(self, message: Message) -> Message:
        """The new part behind the first one, where there is one."""
        if self._goes_on is None:
            return message
        first = self._goes_on.message
        reasoning = (first.reasoning or "") + (message.reasoning or "")
        return replace(message, content=first.content + message.content, reasoning=reasoning or None)
