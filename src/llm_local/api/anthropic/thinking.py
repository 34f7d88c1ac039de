"""Beginning a reply whose request says something about reasoning, to models that may know nothing of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TypeVar

from llm_local.api.anthropic.translate import Thinking
from llm_local.errors import InvalidRequest
from llm_local.service import Service, Work

__all__ = ["with_thinking"]

Result = TypeVar("Result")


async def with_thinking(
    service: Service, work: Work, thinking: Thinking, act: Callable[[Work], Awaitable[Result]]
) -> tuple[Result, tuple[str, ...]]:
    """What `act` makes of `work` with the closest thing to `thinking` that the model knows, and the fields in vain.

    Raises:
        InvalidRequest: the model reasons whatever it is told, and must not.
        LocalLLMError: what `act` raises.
    """
    for place, think in enumerate(thinking.tries):
        changes = dict(work.changes) | ({} if think is None else {"think": think})
        lost = await _lost(
            service, work, thinking.fields[:place]
        )  # first: who leaves meanwhile leaves no reply
        try:
            return await act(dataclasses.replace(work, changes=changes)), lost
        except InvalidRequest as error:
            last = place == len(thinking.tries) - 1
            if error.param != "think" or (last and not thinking.is_off):
                raise
            if thinking.is_off and await _reasons(service, work):
                raise
    return await act(work), ()  # it never reasons, which is what was asked for


async def _lost(service: Service, work: Work, fields: tuple[str, ...]) -> tuple[str, ...]:
    """The fields in vain; that a model which cannot be switched on is to reason is not, where it does so anyway."""
    if "thinking" in fields and await _reasons(service, work):
        return tuple(name for name in fields if name != "thinking")
    return fields


async def _reasons(service: Service, work: Work) -> bool:
    """Whether a model may reason; nobody knows where its files do not tell."""
    card = (await service.show(service.told_name(work.model))).card
    return card is None or bool(card.capabilities.thinking)
