"""A question on its way to the model, with or without tools."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from llm_local.chat.models import ChatTools, ToolRun
from llm_local.events import Event, ToolEvent
from llm_local.messages import Message, ToolDefinition
from llm_local.options import GenerationOptions

if TYPE_CHECKING:
    from llm_local.generator import EventStream, PreparedRequest, TextGenerator

__all__ = ["Asking"]


class Asking:
    """Satisfies `chat.reply.Source`. What the model was given last is in `prepared`.

    `on_accepted` is called once, when it is known that the question can be asked, and before anything is generated.
    """

    def __init__(
        self,
        generator: TextGenerator,
        messages: Sequence[Message],
        options: GenerationOptions,
        *,
        explicit: bool,
        on_accepted: Callable[[], None],
    ) -> None:
        self._generator = generator
        self._messages = tuple(messages)
        self._options = options
        self._explicit = explicit
        self._on_accepted: Callable[[], None] | None = on_accepted
        self._stream: EventStream | None = None
        self._run: ToolRun | None = None
        self.prepared: PreparedRequest | None = None

    def start(self, *, goes_on: bool = False) -> None:
        """Ask without tools; `goes_on`: the last message is the beginning of the answer.

        Raises:
            LocalLLMError: it cannot be asked.
        """
        self._open(self._messages, self._options, (), goes_on=goes_on)

    def start_with_tools(self, tools: ChatTools, names: Collection[str]) -> None:
        """Ask with tools. What cannot be asked is found when the iteration begins."""
        self._run = tools.loop(self._generate, self._messages, self._options, names)

    def __iter__(self) -> Iterator[Event | ToolEvent]:
        if self._run is not None:
            return iter(self._run)
        return iter(()) if self._stream is None else iter(self._stream)

    def cancel(self) -> None:
        """Ask for the end. Safe from a signal handler."""
        run, stream = self._run, self._stream
        if run is not None:
            run.cancel()
        elif stream is not None:
            stream.cancel()

    def close(self) -> None:
        """Free the memory of a stream that nobody reads to its end."""
        if self._stream is not None:
            self._stream.close()

    def _generate(
        self, messages: Sequence[Message], options: GenerationOptions, *, tools: Sequence[ToolDefinition]
    ) -> EventStream:
        return self._open(messages, options, tools)

    def _open(
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        tools: Sequence[ToolDefinition],
        *,
        goes_on: bool = False,
    ) -> EventStream:
        self.prepared = self._generator.prepare_chat(
            messages,
            options,
            tools=tools,
            reserve_explicit=self._explicit,
            policy="trim-oldest",
            goes_on=goes_on,
        )
        self._stream = stream = self._generator.stream(self.prepared)
        if self._on_accepted is not None:
            accepted, self._on_accepted = self._on_accepted, None
            accepted()
        return stream
