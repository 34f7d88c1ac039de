"""The same prompt through several models or settings, one after the other, and what came of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_local.chat.shown import Shown
from llm_local.errors import LocalLLMError
from llm_local.events import Completion, Event, fold
from llm_local.messages import Message
from llm_local.options import GenerationOptions
from llm_local.runtime.speed import decode_rate

if TYPE_CHECKING:
    from llm_local.generator import EventStream, TextGenerator

__all__ = ["Begun", "CompareEvent", "Comparison", "Contestant", "Ended", "Ready", "Row"]

_COLUMNS: Final = ("answered by", "tokens", "tokens/s", "first token", "time", "end")


@dataclass(frozen=True, slots=True)
class Ready:
    """A model and the options that it is to answer with. `explicit_cap`: somebody chose `max_new_tokens`."""

    generator: TextGenerator
    options: GenerationOptions
    explicit_cap: bool = False


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who answers. `open` gives it ready, and frees what it took when the block ends.

    `open` raises LocalLLMError where that cannot be.
    """

    label: str
    open: Callable[[], AbstractContextManager[Ready]]


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one contestant: an answer, or the reason why there is none. `total_s` is without the loading."""

    label: str
    completion: Completion | None = None
    error: str = ""
    total_s: float = 0.0
    seed: int | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second from the first to the last, or None where there are not two."""
        return (
            None if self.completion is None else decode_rate(self.completion.usage, self.completion.timings)
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        if self.completion is None:
            return (self.label, "", "", "", "", self.error)
        speed = self.tokens_per_s
        return (
            self.label,
            str(self.completion.usage.completion_tokens),
            "" if speed is None else f"{speed:.1f}",
            f"{self.completion.timings.first_token_s:.2f} s",
            f"{self.total_s:.2f} s",
            self.completion.finish_reason,
        )


@dataclass(frozen=True, slots=True)
class Begun:
    """A contestant is being opened; the events of its answer follow. `index` counts from 1."""

    label: str
    index: int
    total: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A contestant is through, and its model closed."""

    row: Row


CompareEvent = Begun | Ended | Event


class Comparison:
    """Iterate it, once: for each contestant `Begun`, the events of its answer, `Ended`. What fails is a row too.

    `cancel` ends the answer that is coming, and no further one begins; it is safe from a signal handler.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        contestants: Sequence[Contestant],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.messages = tuple(messages)
        self.contestants = tuple(contestants)
        self.rows: list[Row] = []
        """What came so far."""
        self._clock = clock
        self._stream: EventStream | None = None
        self.cancelled = False
        """Whether somebody asked for the end."""

    def __iter__(self) -> Iterator[CompareEvent]:
        for index, contestant in enumerate(self.contestants, 1):
            if self.cancelled:
                return
            yield Begun(contestant.label, index, len(self.contestants))
            row = yield from self._run(contestant)
            self.rows.append(row)
            yield Ended(row)

    def cancel(self) -> None:
        """Ask for the end."""
        self.cancelled = True
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def table(self) -> Shown:
        """Tokens, speed and time of all, side by side."""
        missing = len(self.contestants) - len(self.rows)
        notes = (f"{missing} of {len(self.contestants)} were not asked any more.",) if missing else ()
        return Shown("Comparison", _COLUMNS, tuple(row.cells for row in self.rows), notes)

    def markdown(self) -> str:
        """The prompt, the table and all answers, as a Markdown page."""
        last = next((one.content for one in reversed(self.messages) if one.role == "user"), "")
        lines = [
            "# Comparison",
            "",
            *_quoted(last),
            "",
            _table_row(_COLUMNS),
            _table_row(["---"] * len(_COLUMNS)),
        ]
        lines += [_table_row(row.cells) for row in self.rows]
        for row in self.rows:
            lines += ["", f"## {row.label}", "", row.error if row.completion is None else row.completion.text]
            if row.seed is not None:
                lines += ["", f"Seed {row.seed}."]
        return "\n".join(lines) + "\n"

    def _run(self, contestant: Contestant) -> Generator[Event, None, Row]:
        events: list[Event] = []
        try:
            with contestant.open() as ready:
                began = self._clock()
                prepared = ready.generator.prepare_chat(
                    self.messages, ready.options, reserve_explicit=ready.explicit_cap, policy="trim-oldest"
                )
                with ready.generator.stream(prepared) as self._stream:
                    if self.cancelled:  # before there was a stream to tell
                        self._stream.cancel()
                    for event in self._stream:
                        events.append(event)
                        yield event
                total_s = self._clock() - began
        except LocalLLMError as error:
            return Row(contestant.label, error=str(error))
        finally:
            self._stream = None
        return Row(contestant.label, fold(events), total_s=total_s, seed=ready.options.seed)


def _quoted(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in text.splitlines()]


def _table_row(cells: Sequence[str]) -> str:
    # a bar or a line end in a cell would break the table
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
