"""A question with tools: what a door hands in, the lines people see of it, and the rounds of replies."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol

from llm_local.config import Config
from llm_local.events import Completion, Event, ToolEvent, ToolResult, ToolStarted
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.options import GenerationOptions
from llm_local.terminal.asking import OpenModel, question_messages, question_options
from llm_local.terminal.streams import Messages
from llm_local.terminal.tool_flags import ToolRequest
from llm_local.terminal.tool_question import ToolAnswer

if TYPE_CHECKING:
    from llm_local.generator import EventStream, PreparedRequest

__all__ = [
    "MakeLoop",
    "OpenTools",
    "Generate",
    "Outcome",
    "ToolRounds",
    "ToolRun",
    "show_tools",
    "tool_line",
    "unfinished_notices",
]

MAX_SHOWN_CHARS: Final = 200


class Outcome(Protocol):
    """What came of a run."""

    @property
    def rounds(self) -> tuple[Completion, ...]:
        """The replies of the model."""

    @property
    def results(self) -> tuple[ToolResult, ...]:
        """What became of each call."""

    @property
    def end(self) -> str:
        """`answered`, `max_rounds` or `cancelled`."""


class ToolRun(Protocol):
    """A loop of replies and calls: `tools.loop.ToolLoop`, which is a stranger to this room."""

    def __iter__(self) -> Iterator[Event | ToolEvent]: ...

    def cancel(self) -> None:
        """Ask for the end. Safe from a signal handler."""

    @property
    def answer(self) -> Outcome:
        """What came of it, when it is over."""


class Generate(Protocol):
    """Answers a conversation as it comes."""

    def __call__(
        self, messages: Sequence[Message], options: GenerationOptions, *, tools: Sequence[ToolDefinition]
    ) -> EventStream: ...


MakeLoop = Callable[[Generate, Sequence[Message], GenerationOptions], ToolRun]
OpenTools = Callable[[ToolRequest, Callable[[ToolCall, str], ToolAnswer]], AbstractContextManager[MakeLoop]]


class ToolRounds:
    """The replies to one question: each prepared as it is asked, so that what the model sees can be shown."""

    def __init__(
        self,
        model: OpenModel,
        config: Config,
        changes: dict[str, object],
        on_prepared: Callable[[PreparedRequest], None],
    ) -> None:
        self._model = model
        self._config = config
        self._on_prepared = on_prepared
        self.options, self._explicit = question_options(config, changes)
        self.prepared: PreparedRequest | None = None
        """The last one."""

    def start(self, make_loop: MakeLoop, prompt: str) -> ToolRun:
        """Make the loop that answers `prompt`."""
        return make_loop(self._generate, question_messages(self._config, prompt), self.options)

    def used_options(self) -> GenerationOptions:
        """The options as they were really used, with what held for the first reply or the answer alone."""
        if self.prepared is None:
            return self.options
        asked = self.options
        return self.prepared.options.replace(tool_choice=asked.tool_choice, constraint=asked.constraint)

    def _generate(
        self, messages: Sequence[Message], options: GenerationOptions, *, tools: Sequence[ToolDefinition]
    ) -> EventStream:
        generator = self._model.generator
        self.prepared = generator.prepare_chat(
            messages, options, tools=tools, reserve_explicit=self._explicit
        )
        self._on_prepared(self.prepared)
        return generator.stream(self.prepared)


def tool_line(result: ToolResult) -> str:
    """One call and what became of it, for people, in one line that is not long."""
    arguments = _short(json.dumps(dict(result.call.arguments), ensure_ascii=False))
    took = f" in {result.run_s:.2f} s" if result.run_s else ""
    omitted = f", {result.omitted_chars} characters left out" if result.omitted_chars else ""
    outcome = result.outcome.replace("_", " ")
    return f"tool {_short(result.call.name)} {arguments}: {outcome}{took}{omitted}: {_short(result.text)}"


def show_tools(
    events: Iterable[Event | ToolEvent], messages: Messages, end_line: Callable[[], None]
) -> Iterator[Event]:
    """The events of the replies; those of the tools are shown on the way. `end_line` ends a line of the answer."""
    for event in events:
        if isinstance(event, ToolStarted):
            end_line()
            messages.status(f"running {event.call.name}")
        elif isinstance(event, ToolResult):
            # what a tool prints lies in a buffer that nobody empties when the process leaves
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            end_line()
            messages.note(tool_line(event))
        else:
            yield event


def unfinished_notices(outcome: Outcome) -> list[str]:
    """What people should know of a run that did not go its whole way; an answer that was cut is not meant."""
    notices = [
        f"Reply {number} was cut after {reply.usage.completion_tokens} tokens; the calls that were whole count."
        for number, reply in enumerate(outcome.rounds[:-1], 1)
        if reply.finish_reason == "length"
    ]
    if outcome.end == "max_rounds":
        notices.append(
            f"The model still called tools in reply {len(outcome.rounds)}, which was the last one allowed; "
            "--max-tool-rounds raises the limit."
        )
    return notices


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
