"""What to do when the window is full. Pure arithmetic on token counts."""

from __future__ import annotations

from llm_local.errors import ContextLengthExceeded

__all__ = ["fit"]

# A default cap may shrink to what is left of the window, but a reply shorter than this is no use.
MIN_REPLY_TOKENS = 32


def fit(prompt_tokens: int, max_new_tokens: int | None, context_length: int, *, explicit: bool) -> int:
    """How many new tokens a request may sample: `max_new_tokens`, or what the window leaves.

    A cap the caller chose (`explicit`) is a promise and must fit whole. A default cap shrinks to the room there
    is, which the finish reason "length" then reports.

    Raises:
        ContextLengthExceeded: the prompt and its reserve do not fit; nothing is ever cut to make them fit.
    """
    least = min(MIN_REPLY_TOKENS, max(1, context_length // 4))
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
