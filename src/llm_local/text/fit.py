"""What to do when the window is full: refuse, or leave out the oldest turns and say so. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from llm_local.errors import ContextLengthExceeded
from llm_local.messages import Message

__all__ = ["MIN_REPLY_TOKENS", "ContextPolicy", "fair_reply_tokens", "fit", "trim_in_steps", "trim_oldest"]

ContextPolicy = Literal["refuse", "trim-oldest"]

# A default cap may shrink to what is left of the window, but a reply shorter than this is no use.
MIN_REPLY_TOKENS: Final = 32
# Of a conversation that is too long a multiple of this part of the window goes.
_STEPS_IN_WINDOW: Final = 4
_REPLIES_IN_WINDOW: Final = 8


def fair_reply_tokens(context_length: int) -> int:
    """The least room for a reply where old turns may go instead: an eighth of the window."""
    return max(MIN_REPLY_TOKENS, context_length // _REPLIES_IN_WINDOW)


def fit(
    prompt_tokens: int,
    max_new_tokens: int | None,
    context_length: int,
    *,
    explicit: bool,
    least: int = MIN_REPLY_TOKENS,
) -> int:
    """How many new tokens a request may sample: `max_new_tokens`, or what the window leaves.

    A cap the caller chose (`explicit`) is a promise and must fit whole. A default cap shrinks to the room there
    is, but not below `least`, which the finish reason "length" then reports.

    Raises:
        ContextLengthExceeded: the prompt and its reserve do not fit; nothing is ever cut to make them fit.
    """
    least = min(least, max(1, context_length // 4))
    room = context_length - prompt_tokens
    if max_new_tokens is None:
        reserve, cap = least, room
    elif explicit:
        reserve, cap = max_new_tokens, max_new_tokens
    else:
        reserve, cap = min(least, max_new_tokens), min(max_new_tokens, room)
    if reserve > room:
        raise ContextLengthExceeded(
            prompt_tokens=prompt_tokens, reserve=reserve, context_length=context_length
        )
    return cap


def trim_oldest(
    messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]
) -> tuple[Message, ...] | None:
    """`messages` without as few of the oldest turns as make them fit; None when even the last turn alone does not.

    A turn is a user's message and all that answers it, tool calls and results included; it goes whole or stays
    whole. System messages at the beginning and the last turn always stay. `fits` is asked O(log n) times.
    """
    num_system = 0
    while num_system < len(messages) and messages[num_system].role == "system":
        num_system += 1
    system, rest = tuple(messages[:num_system]), tuple(messages[num_system:])
    # where a conversation may begin; what stands before the first user's message is a turn of its own
    starts = [0, *(index for index, message in enumerate(rest) if message.role == "user" and index > 0)]
    low, high = 0, len(starts) - 1
    if not fits((*system, *rest[starts[high] :])):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits((*system, *rest[starts[middle] :])):
            high = middle
        else:
            low = middle + 1
    return (*system, *rest[starts[high] :])


def trim_in_steps(
    messages: Sequence[Message],
    count_tokens: Callable[[Sequence[Message]], int],
    too_long: ContextLengthExceeded,
) -> tuple[Message, ...] | None:
    """`messages` without so many of the oldest turns that they fit; None when even the last turn alone does not.

    A conversation that has just grown too long loses about a quarter of the window, and then nothing more until that
    is full again. So what is left begins with the same turn for some time, and is not read anew at each question; and
    there is room for an answer. How much goes follows from the length alone: whoever sends all of it each time gets
    the same beginning. Where only the last turn would be left, and that is too long for this, as little goes as can.

    `count_tokens` is asked O(log n) times, and never for all of the messages, whose size `too_long` tells.
    """
    room = too_long.context_length - too_long.reserve
    step = max(1, too_long.context_length // _STEPS_IN_WINDOW)
    num_steps = -(-(too_long.prompt_tokens - room) // step)

    def within(limit: int) -> Callable[[Sequence[Message]], bool]:
        return lambda part: len(part) < len(messages) and count_tokens(part) <= limit

    kept = trim_oldest(messages, within(too_long.prompt_tokens - num_steps * step))
    return trim_oldest(messages, within(room)) if kept is None else kept
