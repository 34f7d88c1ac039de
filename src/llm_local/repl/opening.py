"""What a chat stands on, opened one after the other: the archive, the tools, the model, the session."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack

from llm_local.chat.archive import Archive
from llm_local.chat.session import ChatSession
from llm_local.config import Config, Origin
from llm_local.conversations.records import Conversation
from llm_local.conversations.store import ConversationStore
from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.events import Progress
from llm_local.messages import ToolCall
from llm_local.repl.flags import ChatRequest
from llm_local.repl.tools import OpenTools, open_tools
from llm_local.terminal.asking import OpenModel
from llm_local.terminal.chat_front import FrontParts
from llm_local.terminal.chat_view import ChatView
from llm_local.terminal.tool_flags import ToolRequest
from llm_local.terminal.tool_question import ToolAnswer, ToolQuestion

__all__ = ["OpenAModel", "Opening", "with_model"]

OpenAModel = Callable[[Config, Callable[[Progress], None]], OpenModel]


def with_model(config: Config, ref: str) -> Config:
    """The same settings for another model, as if somebody had named it on the command line."""
    origins = {**config.origins, "model_id": Origin("flag", "--model", "")}
    return dataclasses.replace(config, model_id=ref, origins=origins)


class Opening:
    """Opens what a request asks for; `closing` closes it again."""

    def __init__(
        self,
        request: ChatRequest,
        parts: FrontParts,
        view: ChatView,
        closing: ExitStack,
        opener: OpenAModel,
    ) -> None:
        self._request = request
        self._parts = parts
        self._view = view
        self._closing = closing
        self._opener = opener

    def archive(self) -> Archive | None:
        """The user's conversations; None where none are wanted, or where they cannot be had, which is said."""
        if not self._request.stores:
            return None
        try:
            store = ConversationStore.open()
        except LocalLLMError as error:
            if self._wants_old():
                raise
            self._view.notice(f"Nothing of this chat is stored: {error}")
            return None
        self._closing.callback(store.close)
        for notice in store.notices:
            self._view.notice(notice)
        return Archive(store)

    def conversation(self, archive: Archive | None) -> Conversation | None:
        """The one to go on with, or None.

        Raises:
            LocalLLMError: it was named, and is not there.
        """
        if archive is None:
            return None
        if self._request.conversation is not None:
            return archive.get(self._request.conversation)
        if not self._request.continues:
            return None
        latest = archive.latest()
        if latest is None:
            self._view.notice("There is no conversation to go on with yet; this is the first one.")
        return latest

    def session(
        self, config: Config, archive: Archive | None, conversation: Conversation | None
    ) -> ChatSession:
        """The model loaded, the conversation opened, the options of the flags set.

        Raises:
            LocalLLMError: the model or a tool cannot be opened, or an option does not suit the model.
        """
        tools = None if self._request.tools is None else self._tools(self._request.tools)
        model = self._opener(config, self._view.progress)
        self._view.suspend()
        for notice in filter(None, model.notices):
            self._view.notice(notice)
        session = ChatSession(
            model,
            config,
            archive=archive,
            open_model=lambda ref: self._other_model(with_model(config, ref)),
            tools=tools,
        )
        if conversation is not None:
            for notice in session.open(conversation.id):
                self._view.notice(notice)
            if config.source("system_prompt") == "flag":
                session.set_system(config.system_prompt)
        for name, text in self._request.options.items():
            session.set_option(name, text)
        if tools is not None:
            session.set_tools({offer.name for offer in tools.offers})
        return session

    def _wants_old(self) -> bool:
        return self._request.continues or self._request.conversation is not None

    def _other_model(self, config: Config) -> OpenModel:
        """A model in the course of the chat: Ctrl-C stops its loading, and the old one stays."""

        def report(progress: Progress) -> None:
            self._view.progress(progress)
            if self._parts.signals.cancelled:
                raise InvalidRequest(f"The loading of {config.model_id} was stopped.", param="model")

        try:
            return self._opener(config, report)
        finally:
            self._view.suspend()

    def _tools(self, request: ToolRequest) -> OpenTools:
        question = ToolQuestion(
            self._parts.messages, request.approve, stopped=lambda: self._parts.signals.cancelled
        )

        def ask(call: ToolCall, source: str) -> ToolAnswer:
            self._view.suspend()
            self._parts.modes.show_typing()
            try:
                return question.ask(call, source)
            finally:
                self._parts.modes.hush()

        on_line = self._parts.messages.note if self._request.debug else None
        return self._closing.enter_context(open_tools(request, ask, on_line))
