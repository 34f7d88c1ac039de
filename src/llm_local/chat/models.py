"""What a session needs of the rooms that are strangers to it: protocols that a door satisfies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llm_local.events import Completion, Event, ToolEvent, ToolResult
from llm_local.messages import Message, ToolDefinition
from llm_local.options import GenerationOptions
from llm_local.specs import ModelInfo

if TYPE_CHECKING:
    from llm_local.generator import TextGenerator

__all__ = [
    "ChatModel",
    "ChatTools",
    "Generate",
    "OpenModel",
    "ReplyStream",
    "ToolOffer",
    "ToolRounds",
    "ToolRun",
]


class ChatModel(Protocol):
    """A model ready to answer; `terminal.asking.OpenModel` is one."""

    @property
    def generator(self) -> TextGenerator:
        """Generates with it."""

    @property
    def info(self) -> ModelInfo:
        """What it is."""

    @property
    def generation_defaults(self) -> Mapping[str, Any]:
        """How its makers want it sampled, by the names of settings."""

    @property
    def load_s(self) -> float:
        """Seconds that it took to load."""

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines that people should see."""


OpenModel = Callable[[str], ChatModel]
"""Opens a model by name; raises LocalLLMError where it cannot."""


class ReplyStream(Protocol):
    """The events of one reply."""

    def __iter__(self) -> Iterator[Event]: ...

    def cancel(self) -> None:
        """Ask for the end. Safe from a signal handler."""


class Generate(Protocol):
    """Answers a conversation as it comes."""

    def __call__(
        self, messages: Sequence[Message], options: GenerationOptions, *, tools: Sequence[ToolDefinition]
    ) -> ReplyStream: ...


class ToolRounds(Protocol):
    """What came of a run with tools."""

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
    """A loop of replies and calls; `tools.loop.ToolLoop` is one."""

    def __iter__(self) -> Iterator[Event | ToolEvent]: ...

    def cancel(self) -> None:
        """Ask for the end. Safe from a signal handler."""

    @property
    def answer(self) -> ToolRounds:
        """What came of it, when it is over."""


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool that may be switched on. `source` says for people where it comes from."""

    name: str
    description: str
    source: str


class ChatTools(Protocol):
    """The tools that a door has opened for a chat, which stay open as long as it runs."""

    @property
    def offers(self) -> Sequence[ToolOffer]:
        """All of them, on or off."""

    def loop(
        self,
        generate: Generate,
        messages: Sequence[Message],
        options: GenerationOptions,
        names: Collection[str],
    ) -> ToolRun:
        """A loop over the tools with these names."""
