"""The choices of one request side by side: begun together, read as they come, closed together."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from llm_local.errors import EngineError, InvalidRequest, LocalLLMError
from llm_local.events import Delta, Event, Finish, ToolCallEvent
from llm_local.service import ServedReply, Service, Work

__all__ = ["Choice", "Chunks", "all_of", "begin_choices", "close_all", "events_of", "read_all"]

Result = TypeVar("Result")

# Events of one choice that may wait for the reader before the choice itself waits.
_WAITING: Final = 64


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers. `prompt` is the number of its prompt; `one_call` ends it after a tool call.

    `never_reasons`: it was asked not to reason, and is of a model that does not anyway.
    """

    index: int
    prompt: int
    reply: ServedReply
    one_call: bool = False
    never_reasons: bool = False


async def begin_choices(
    service: Service, works: Sequence[Work], n: int = 1, *, one_call: bool = False
) -> list[Choice]:
    """`n` answers to each of `works`, those of one prompt next to each other.

    Raises:
        LocalLLMError: one cannot be given; then none is.
    """
    choices: list[Choice] = []
    try:
        for prompt, work in enumerate(works):
            replies, never_reasons = await _begin(service, work, n)
            choices += [
                Choice(prompt * n + place, prompt, reply, one_call, never_reasons)
                for place, reply in enumerate(replies)
            ]
    except BaseException:
        await close_all(choices)
        raise
    return choices


async def close_all(choices: Sequence[Choice]) -> None:
    """Free what the choices hold. Harmless when repeated."""
    for choice in choices:
        await choice.reply.aclose()


async def read_all(choices: Sequence[Choice]) -> list[list[Event]]:
    """All events of each choice."""
    try:
        return await all_of([_read(choice) for choice in choices])
    finally:
        await close_all(choices)


async def all_of(works: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of all, side by side; where one fails the others are cancelled, and its failure is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except* asyncio.CancelledError:
        raise asyncio.CancelledError from None
    except* Exception as failures:
        raise _first(failures) from None
    return [task.result() for task in tasks]


async def events_of(choices: Sequence[Choice]) -> AsyncGenerator[tuple[Choice, Event]]:
    """The events of all choices as they come. Close it to close them."""
    if len(choices) == 1:
        async for event in _events(choices[0]):
            yield choices[0], event
        return
    waiting: asyncio.Queue[tuple[Choice, Event | BaseException | None]] = asyncio.Queue(_WAITING)
    tasks = [asyncio.create_task(_post(choice, waiting)) for choice in choices]
    try:
        running = len(tasks)
        while running:
            choice, posted = await waiting.get()
            if isinstance(posted, BaseException):
                raise posted
            if posted is None:
                running -= 1
            else:
                yield choice, posted
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Chunks:
    """What a generator makes of choices, for a streamed answer.

    Closing it closes the choices even where nothing of it was ever read, which closing a generator does not.
    """

    def __init__(self, choices: Sequence[Choice], chunks: AsyncGenerator[Any]) -> None:
        self._choices = choices
        self._chunks = chunks

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """End the generator and the choices. Harmless when repeated."""
        try:
            await self._chunks.aclose()
        finally:
            await close_all(self._choices)


async def _begin(service: Service, work: Work, n: int) -> tuple[Sequence[ServedReply], bool]:
    """The replies, and whether a switch for reasoning had nothing to switch off.

    Many clients send that switch to every model. It is refused where it is needed and missing, but not where the model
    never reasons.
    """
    try:
        return ([await service.begin(work)] if n == 1 else await service.begin_many(work, n)), False
    except InvalidRequest as error:
        if error.param != "think" or work.changes.get("think") != "off" or await _reasons(service, work):
            raise
    changes = {name: value for name, value in work.changes.items() if name != "think"}
    replies, _ = await _begin(service, dataclasses.replace(work, changes=changes), n)
    return replies, True


async def _reasons(service: Service, work: Work) -> bool:
    """Whether a model may reason; nobody knows where its files do not tell."""
    card = (await service.show(service.told_name(work.model))).card
    return card is None or bool(card.capabilities.thinking)


async def _events(choice: Choice) -> AsyncGenerator[Event]:
    """The events of a choice; with `one_call` it is over after its first call, and what follows is no text of it."""
    called = False
    async for event in choice.reply:
        if not called and isinstance(event, Finish) and event.reason == "cancelled":
            raise _broken_off(choice.reply)
        if called and isinstance(event, Finish):
            yield dataclasses.replace(event, reason="tool_calls")
        elif called and isinstance(event, Delta):
            yield dataclasses.replace(event, text="")  # its tokens were sampled, and are counted
        elif not called:
            yield event
        if choice.one_call and isinstance(event, ToolCallEvent) and not called:
            called = True
            choice.reply.cancel()


def _broken_off(reply: ServedReply) -> LocalLLMError:
    """The error of a reply that ended before its time, and not because its reader wanted that."""
    if reply.timed_out:
        return LocalLLMError("The deadline passed before the reply was complete.", kind="deadline_exceeded")
    return EngineError("The reply was broken off.", "Try again.")


async def _read(choice: Choice) -> list[Event]:
    return [event async for event in _events(choice)]


async def _post(choice: Choice, waiting: asyncio.Queue[tuple[Choice, Event | BaseException | None]]) -> None:
    try:
        async for event in _events(choice):
            await waiting.put((choice, event))
    except Exception as error:
        await waiting.put((choice, error))
    else:
        await waiting.put((choice, None))


def _first(failures: BaseExceptionGroup[Any]) -> BaseException:
    """One failure of a group; the others were cancelled or failed alike."""
    found: BaseException = failures
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
