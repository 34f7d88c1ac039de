"""The messages of a chat, in memory and in the archive: begin, open, fork, undo, a system prompt before it all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from llm_local.chat.saving import Saver
from llm_local.chat.turns import Entry, last_question, num_turns
from llm_local.conversations.records import Conversation, StoredMessage
from llm_local.conversations.transcript import Transcript
from llm_local.errors import InvalidRequest, LocalLLMError, StorageError
from llm_local.messages import Message

if TYPE_CHECKING:
    from llm_local.chat.archive import Archive

__all__ = ["History"]


class History:
    """The messages of one conversation after the other. `archive` is None where nothing is stored."""

    def __init__(
        self, archive: Archive | None, system_prompt: str | None, clock: Callable[[], float]
    ) -> None:
        self.archive = archive
        self._saver = Saver(archive, clock)
        self._entries = [Entry(Message("system", system_prompt))] if system_prompt else []
        self._insists = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All messages, each with what is known of it."""
        return tuple(self._entries)

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages, the system prompt first."""
        return tuple(entry.message for entry in self._entries)

    @property
    def system_prompt(self) -> str | None:
        """The text that stands before the conversation."""
        first = self._entries[0].message if self._entries else None
        return first.content if first is not None and first.role == "system" else None

    @property
    def num_turns(self) -> int:
        """Questions asked so far in this conversation."""
        return num_turns(self._entries)

    @property
    def conversation(self) -> Conversation | None:
        """What the archive calls it; None before the first message, and where nothing is stored."""
        return self._saver.conversation

    @property
    def is_stored(self) -> bool:
        """Whether every message so far is in the archive."""
        return self._saver.is_stored

    def undo(self) -> Message:
        """Drop the last question and its answer; gives the question.

        Raises:
            InvalidRequest: there is none.
        """
        self._settle()
        at = self._last_question()
        question = self._entries[at].message
        self._entries = self._entries[:at]
        self._save()
        return question

    def new(self) -> None:
        """Begin another conversation with the same system prompt and options. What is stored stays.

        Raises:
            StorageError: this one is not stored; when it is asked for again, it goes without that.
        """
        self._let_go()
        self._begin_anew()

    def leave(self) -> tuple[str, ...]:
        """The chat ends: try a last time to store what is not stored; gives lines that people should see."""
        self._settle()
        if self.archive is None or self._saver.is_stored or not self.num_turns:
            return ()
        self._saver.sync(self._entries, self._model_ref)
        notices = self._saver.take_notices()
        return (
            notices
            if self._saver.is_stored
            else ("The conversation is not saved whole, and is lost so far.",)
        )

    def load(self, transcript: Transcript) -> tuple[str, ...]:
        """Begin another conversation with these messages; gives lines that people should see.

        Raises:
            StorageError: as for `new`.
        """
        self._let_go()
        self._begin_anew()
        self._entries = [Entry(one.message, one.status, one.facts) for one in transcript.messages]
        self._saver.sync(self._entries, self._model_ref)
        notices = self._saver.take_notices()
        if transcript.title and self.conversation is not None:
            with suppress(LocalLLMError):  # a title is not worth a word
                self._saver.rename(transcript.title)
        return notices

    def transcript(self) -> Transcript:
        """The conversation so far, to be written to a file."""
        conversation = self.conversation
        at = last_question(self._entries[:2])
        first = self._entries[at].message.content if at is not None else ""
        title = conversation.title if conversation is not None else " ".join(first.split())[:60]
        return Transcript(
            title,
            self._model_ref,
            None if conversation is None else conversation.created,
            tuple(
                StoredMessage(at, entry.message, entry.status, entry.facts)
                for at, entry in enumerate(self._entries)
            ),
        )

    def open(self, conversation_id: str) -> tuple[str, ...]:
        """Go on with a stored conversation; gives lines that people should see.

        Raises:
            InvalidRequest: nothing is stored here.
            LocalLLMError: it cannot be found or read, or the present one is not stored (as for `new`); that one stays.
        """
        archive = self.need_archive()
        self._let_go()
        conversation = archive.get(conversation_id)
        entries = [Entry(one.message, one.status, one.facts) for one in archive.messages(conversation.id)]
        self._begin_anew()
        self._entries = entries
        self._saver.adopt(conversation, entries)
        ref = self._model_ref
        if conversation.model in (None, ref):
            return ()
        return (f"It was last answered by {conversation.model}; now {ref} answers.",)

    def fork(self) -> Conversation:
        """Go on with a copy; the conversation so far stays as it is.

        Raises:
            InvalidRequest: nothing is stored here, or there is no message yet.
            LocalLLMError: the archive cannot.
        """
        self._settle()
        archive = self.need_archive()
        if self.conversation is None:
            raise InvalidRequest("There is nothing to fork yet.", param="messages")
        copy = archive.fork(self.conversation.id)
        self._saver.adopt(copy)  # with what is stored, which may be less than there is
        self._save()
        return copy

    def rename(self, title: str) -> None:
        """Give the conversation a title.

        Raises:
            InvalidRequest: nothing is stored here, or there is no message yet.
            LocalLLMError: the archive cannot.
        """
        self.need_archive()
        if self.conversation is None:
            raise InvalidRequest("There is no conversation to name yet.", param="title")
        self._saver.rename(title)

    def set_system(self, text: str | None) -> tuple[str, ...]:
        """Put another system prompt before the conversation, or none; gives lines that people should see.

        Raises:
            InvalidRequest: the text is no valid Unicode.
        """
        self._settle()
        rest = self._entries[1:] if self.system_prompt is not None else self._entries
        self._entries = ([Entry(Message("system", text))] if text else []) + rest
        return self._save()

    def _let_go(self) -> None:
        """Another conversation takes the place of this one, so this is the last time to store it."""
        self._settle()
        if self.archive is None or not self.num_turns:
            return
        self._saver.sync(self._entries, self._model_ref)
        if self._saver.is_stored or self._insists:
            self._insists = False
            return
        self._insists = True  # if it is asked for again
        raise StorageError(
            "This conversation is not saved, and trying it again failed.",
            "Write it to a file with /save FILE, or repeat the command to go on without it.",
        )

    def _begin_anew(self) -> None:
        """Forget all but the system prompt."""
        self._entries = self._entries[:1] if self.system_prompt is not None else []
        self._saver.leave()

    def _settle(self) -> None:
        """End what is still coming, before the messages change."""

    @property
    def _model_ref(self) -> str:
        """The model that the archive is told."""
        raise NotImplementedError

    def _save(self) -> tuple[str, ...]:
        """Bring the archive up to date, once there is a conversation; gives lines that people should see."""
        if self.conversation is not None:
            self._saver.sync(self._entries, self._model_ref)
        return self._saver.take_notices()

    def _last_question(self) -> int:
        at = last_question(self._entries)
        if at is None:
            raise InvalidRequest("There is no question yet.", "Ask one.", param="messages")
        return at

    def need_archive(self) -> Archive:
        """The archive. Raises InvalidRequest where nothing is stored."""
        if self.archive is None:
            raise InvalidRequest(
                "Nothing is stored in this chat.",
                "It was started with --no-history, or the archive cannot be opened.",
                param="archive",
            )
        return self.archive
