"""One chat: its history, its model, its options. It returns values and never prints.

    session = ChatSession(model, config, archive=archive, open_model=open_model)
    with session.ask("Hello") as reply:
        for event in reply:
            ...
    reply.completion

A session belongs to one thread; only `ChatReply.cancel` may be called from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from llm_local.chat.asking import Asking
from llm_local.chat.attachments import Attachments
from llm_local.chat.compare import Comparison
from llm_local.chat.contestants import make_contestant
from llm_local.chat.history import History
from llm_local.chat.model_slot import ModelSlot
from llm_local.chat.models import ChatModel, ChatTools, OpenModel
from llm_local.chat.recording import Place, Recording
from llm_local.chat.reply import ChatReply
from llm_local.chat.sampling_choices import OptionChoices, check_choices, kept_choices, option_name
from llm_local.chat.turns import MAX_TURNS, Entry, is_unanswered, seen
from llm_local.config import Config
from llm_local.errors import InvalidRequest
from llm_local.events import Completion
from llm_local.messages import Message
from llm_local.options import GenerationOptions

if TYPE_CHECKING:
    from llm_local.chat.archive import Archive
    from llm_local.generator import PreparedRequest

__all__ = ["ChatSession"]

_SAME_AGAIN: Final = "Nothing is left to chance here, so only another prompt or option changes the answer."
_LEFT_OUT: Final = (
    f"From now on the model sees the last {MAX_TURNS} turns at most; older ones stay in the conversation, "
    "but it is not given them."
)
_NO_TOOLS: Final = "An answer goes on without tools."


class ChatSession(History):
    """A conversation that goes on.

    `archive` keeps every message; what goes wrong there becomes a notice, and the chat goes on. `open_model` opens
    another model by name. `tools` may be switched on. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        model: ChatModel,
        config: Config,
        *,
        archive: Archive | None = None,
        open_model: OpenModel | None = None,
        tools: ChatTools | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`config` is as `load_config` gave it: the model's own defaults are mixed in here."""
        super().__init__(archive, config.system_prompt, clock)
        self._slot = ModelSlot(model, open_model)
        self._choices = OptionChoices(config)
        self.tools = tools
        self.tools_on: frozenset[str] = frozenset()
        """The names of the tools that the model may call."""
        self.attachments = Attachments()
        """The files that go into the next question."""
        self._reply: ChatReply | None = None
        self._asking: Asking | None = None
        self._context_used: int | None = None
        self._told: set[str] = set()  # what need not be said again in this conversation
        self.comparison: Comparison | None = None
        """The last one, for whoever wants to write it down."""
        self.completions: list[Completion] = []
        """The answers since the session began, in whatever conversation."""

    @property
    def model(self) -> ChatModel:
        """The model that answers."""
        return self._slot.model

    @property
    def options(self) -> GenerationOptions:
        """How the next answer is generated. The seed is None where each answer draws one."""
        return self._choices.options(self.model.generation_defaults, draw_seed=False)

    @property
    def chosen(self) -> frozenset[str]:
        """The options that `set_option` changed, as `GenerationOptions` names them."""
        return frozenset(self._choices.changes)

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.model.info.context_length

    @property
    def context_used(self) -> int | None:
        """Tokens of the last prompt and its answer, or None while nothing was asked of this model."""
        return self._context_used

    @property
    def prepared(self) -> PreparedRequest | None:
        """Exactly what the model was given last."""
        return None if self._asking is None else self._asking.prepared

    def ask(self, text: str) -> ChatReply:
        """Ask. What is refused leaves the conversation as it was.

        Raises:
            InvalidRequest: no question, or one that the model's chat template refuses.
            ContextLengthExceeded: the question alone does not fit the context.
            LocalLLMError: the engine refuses it.
        """
        self._settle()
        question = self.attachments.put_before(text)
        if not question.strip():
            raise InvalidRequest("There is no question.", param="text")
        place = Place([*self._entries, Entry(Message("user", question))])
        return self._answer(place, on_accepted=self.attachments.clear)

    def regenerate(self) -> ChatReply:
        """Answer the last question again. The answer that is there stays until something new is.

        Raises:
            LocalLLMError: as `ask`; there is nothing to answer.
        """
        self._settle()
        at = self._last_question()
        fixed = self._choices.fixed_seed or self.options.greedy
        old = self._entries[at + 1 :]
        notices = (_SAME_AGAIN,) if fixed and old and not is_unanswered(old[-1]) else ()
        return self._answer(Place(self._entries[: at + 1], old), notices)

    def edit_last(self, text: str) -> ChatReply:
        """Ask another question in place of the last one.

        Raises:
            LocalLLMError: as `ask`; there is nothing to edit.
        """
        self._settle()
        at = self._last_question()
        if not text.strip():
            raise InvalidRequest("There is no question.", param="text")
        return self._answer(Place([*self._entries[:at], Entry(Message("user", text))]))

    def continue_reply(self) -> ChatReply:
        """Go on with the last answer where it was broken off or cut.

        Raises:
            InvalidRequest: it is whole, or this model's chat template cannot leave an answer open.
            LocalLLMError: as `ask`.
        """
        self._settle()
        last = self._entries[-1] if self._entries else None
        if last is None or last.message.role != "assistant" or is_unanswered(last):
            raise InvalidRequest("There is no answer to continue.", "Ask, or /retry.", param="messages")
        if last.status == "complete" and (last.facts is None or last.facts.finish_reason != "length"):
            raise InvalidRequest(
                "The last answer is complete.", "/regen gives another one.", param="messages"
            )
        return self._answer(Place(self._entries[:-1], [last], goes_on=last))

    def set_option(self, name: str, text: str) -> str:
        """Change one option of the next answers, by name and text; gives what holds now, as text.

        Raises:
            InvalidRequest: no such option, a value that is not allowed, or one that this model cannot keep.
        """
        choices = self._choices.changed(name, text)
        if option_name(name) in ("think", "format"):
            check_choices(choices, self.model)
        self._choices = choices
        return self.shown_option(name)

    def shown_option(self, name: str) -> str:
        """What holds for one option now, as text. Raises InvalidRequest where there is none of that name."""
        return self._choices.shown(name, self.model.generation_defaults)

    def compare(self, contestants: Sequence[str]) -> Comparison:
        """The last question to several models or options: `MODEL`, `NAME=VALUE`, or `MODEL,NAME=VALUE` each.

        Raises:
            InvalidRequest: there is no question, or a word that is none of these.
        """
        self._settle()
        asked = seen(self._entries[: self._last_question() + 1]).messages
        made = [make_contestant(one, self._choices, self.model, self._slot.open_model) for one in contestants]
        self.comparison = Comparison(asked, made)
        return self.comparison

    def set_tools(self, names: Collection[str]) -> None:
        """Let the model call these tools, and no others.

        Raises:
            InvalidRequest: there is no tool of that name.
        """
        known = [] if self.tools is None else [offer.name for offer in self.tools.offers]
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise InvalidRequest(
                f"There is no tool {unknown[0]!r}.", f"There is {', '.join(known) or 'none'}.", param="tools"
            )
        self.tools_on = frozenset(names)

    def switch(self, ref: str) -> tuple[str, ...]:
        """Let another model answer; gives lines that people should see. The old one stays where that fails.

        Raises:
            LocalLLMError: the other one cannot be opened.
        """
        self._settle()
        self._asking, self._reply = None, None  # they know the old model
        notices = self._slot.switch(ref)
        self._told.clear()
        self._context_used = None
        self._choices, dropped = kept_choices(self._choices, self.model)
        return notices + dropped + self._saver.set_model(self.model.info.ref)

    def _answer(
        self, place: Place, notices: Sequence[str] = (), on_accepted: Callable[[], None] = lambda: None
    ) -> ChatReply:
        goes_on = place.goes_on
        view = seen(place.before if goes_on is None else [*place.before, goes_on])
        options = self._choices.options(self.model.generation_defaults, draw_seed=True)
        recording = Recording(self._saver, place, model=self._model_ref, seed=options.seed, keep=self._keep)

        def accept() -> None:
            self._entries = recording.begin()
            on_accepted()

        asking = Asking(
            self.model.generator,
            view.messages,
            options,
            explicit=self._choices.explicit_cap,
            on_accepted=accept,
        )
        with_tools = self.tools is not None and bool(self.tools_on)
        if goes_on is not None or self.tools is None or not self.tools_on:
            asking.start(goes_on=goes_on is not None)
        else:
            asking.start_with_tools(self.tools, self.tools_on)
        self._asking = asking
        if view.num_left_out:
            notices = (*notices, *self._once(_LEFT_OUT))
        if goes_on is not None and with_tools:
            notices = (*notices, _NO_TOOLS)
        self._reply = ChatReply(asking, recording, (*notices, *self._saver.take_notices()))
        return self._reply

    def _keep(self, entries: list[Entry], whole: Completion, reply: Completion | None) -> tuple[str, ...]:
        """The answer is over: `reply` is its last part."""
        self._entries = entries
        self.completions.append(whole)
        if reply is not None and reply.usage.total_tokens:
            self._context_used = reply.usage.total_tokens
        if self._asking is None:
            return ()
        self._asking.close()
        prepared = self._asking.prepared
        return () if prepared is None else self._once(*prepared.notices)

    def _once(self, *notices: str) -> tuple[str, ...]:
        new = tuple(notice for notice in notices if notice not in self._told)
        self._told.update(new)
        return new

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self.attachments.clear()
        self._told.clear()
        self._context_used = None

    def _settle(self) -> None:
        if self._reply is not None:
            self._reply.close()
            self._reply = None

    @property
    def _model_ref(self) -> str:
        return self.model.info.ref
