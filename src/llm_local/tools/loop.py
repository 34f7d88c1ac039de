"""The tool loop: the model calls, the tools run, the model reads what came of it, until it answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llm_local.errors import ContextLengthExceeded, InvalidRequest
from llm_local.events import Completion, Event, ToolEvent, ToolResult, Usage, fold
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.options import GenerationOptions
from llm_local.tools.approval import Approve, deny_all
from llm_local.tools.calling import CallRunner
from llm_local.tools.collection import collect_tools
from llm_local.tools.limits import ToolLimits
from llm_local.tools.tool import Tool

__all__ = ["Generate", "LoopEnd", "ReplyStream", "ToolAnswer", "ToolLoop"]

LoopEnd = Literal["answered", "max_rounds", "cancelled"]


class ReplyStream(Protocol):
    """The stream of one reply."""

    def __iter__(self) -> Iterator[Event]: ...

    def cancel(self) -> None:
        """Ask for the end."""


class Generate(Protocol):
    """Answers a conversation as it comes: `TextGenerator.generate_chat_stream`, or what stands for it."""

    def __call__(
        self,
        messages: Sequence[Message],
        options: GenerationOptions,
        *,
        tools: Sequence[ToolDefinition],
    ) -> ReplyStream: ...


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """A conversation with tools, when it is over.

    `rounds` are the replies of the model, the answer last. `messages` are all that came after those given: each reply
    with its calls and its reasoning, and behind it one result for each call.
    """

    rounds: tuple[Completion, ...]
    results: tuple[ToolResult, ...]
    messages: tuple[Message, ...]
    end: LoopEnd

    @property
    def text(self) -> str:
        """The last reply."""
        return self.rounds[-1].text if self.rounds else ""

    @property
    def usage(self) -> Usage:
        """The sum over all rounds: each reads the whole conversation again, from the cache where it can."""
        return Usage(
            sum(one.usage.prompt_tokens for one in self.rounds),
            sum(one.usage.cached_tokens for one in self.rounds),
            sum(one.usage.completion_tokens for one in self.rounds),
            sum(one.usage.drafted_tokens for one in self.rounds),
            sum(one.usage.accepted_tokens for one in self.rounds),
            sum(one.usage.replayed_tokens for one in self.rounds),
        )


class ToolLoop:
    """One answer with tools. Iterate it, once, then ask for `answer`; or `run` it.

    What comes are the events of each reply, with its own `Finish`, and behind a reply with calls for each of them
    `ToolStarted`, if it runs, and `ToolResult`.

    It ends when the model answers without a call; when it still calls after `limits.max_rounds` rounds, and those last
    calls are not run; or when it is cancelled. `end` tells which. A `tool_choice` that asks for a call holds for the
    first reply; for later ones it is "auto". A constraint holds for the answer, so not for a reply that must be a call.

    Raises:
        InvalidRequest: two tools of one name, or no tools.
        LocalLLMError: (while it is iterated) a reply failed, or the conversation does not fit the context any more.
    """

    def __init__(
        self,
        generate: Generate,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        options: GenerationOptions,
        *,
        approve: Approve = deny_all,
        limits: ToolLimits | None = None,
    ) -> None:
        if not tools:
            raise InvalidRequest("No tools are given.", "Without tools, generate.", param="tools")
        tools = collect_tools(tools)
        self._generate = generate
        self._given = tuple(messages)
        self._definitions = [tool.definition for tool in tools]
        self._options = options
        self._limits = limits or ToolLimits()
        self._runner = CallRunner(tools, approve, self._limits)
        self._stream: ReplyStream | None = None
        self._rounds: list[Completion] = []
        self._results: list[ToolResult] = []
        self._messages: list[Message] = []
        self._begun = False
        self.end: LoopEnd | None = None
        """How it ended, or None while it goes on."""

    def __iter__(self) -> Iterator[Event | ToolEvent]:
        if self._begun:
            raise InvalidRequest("A tool loop runs once.", "Make another one.")
        self._begun = True
        while True:
            reply = yield from self._reply()
            over = len(self._rounds) > self._limits.max_rounds
            for call in reply.tool_calls:
                for event in [self._over_limit(call)] if over else self._runner.run(call):
                    if isinstance(event, ToolResult):
                        self._keep(event)
                    yield event
            if reply.finish_reason == "cancelled" or (reply.tool_calls and self._runner.cancelled):
                self.end = "cancelled"
            elif not reply.tool_calls:
                self.end = "answered"  # whole, even where a cancel came with its last token
            elif over:
                self.end = "max_rounds"
            if self.end is not None:
                return

    def cancel(self) -> None:
        """Ask for the end: of the reply, or of the waiting for a tool. Safe from a signal handler."""
        self._runner.cancel()
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def run(self) -> ToolAnswer:
        """Go through to the end."""
        for _ in self:
            pass
        return self.answer

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole conversation so far, with the messages that were given."""
        return (*self._given, *self._messages)

    @property
    def answer(self) -> ToolAnswer:
        """What came of it. Before the end, and after an error: what there is."""
        return ToolAnswer(
            tuple(self._rounds), tuple(self._results), tuple(self._messages), self.end or "cancelled"
        )

    def _reply(self) -> Generator[Event, None, Completion]:
        """One reply of the model, kept."""
        events: list[Event] = []
        try:
            self._stream = self._generate(self.messages, self._round_options(), tools=self._definitions)
            if self._runner.cancelled:  # before there was a stream to tell
                self._stream.cancel()
            for event in self._stream:
                events.append(event)
                yield event
        except ContextLengthExceeded as error:
            if self._results:
                error.hint = (
                    "The results of tools are a part of it: let them be shorter, or take a longer context."
                )
            raise
        finally:
            self._stream = None
        reply = fold(events)
        if reply.finish_reason == "cancelled":
            self._runner.cancel()
        self._rounds.append(reply)
        self._messages.append(
            Message("assistant", reply.text, reasoning=reply.reasoning or None, tool_calls=reply.tool_calls)
        )
        return reply

    def _round_options(self) -> GenerationOptions:
        if self._options.tool_choice in ("auto", "none"):
            return self._options
        if not self._rounds:
            return self._options.replace(constraint=None)
        return self._options.replace(tool_choice="auto")

    def _over_limit(self, call: ToolCall) -> ToolResult:
        text = f"Not run, because the limit of {self._limits.max_rounds} rounds of calls is reached."
        return self._runner.result(call, "over_limit", text)

    def _keep(self, result: ToolResult) -> None:
        self._results.append(result)
        self._messages.append(
            Message("tool", result.text, name=result.call.name, tool_call_id=result.call.id)
        )
