"""Which front a chat gets: the rich one on a terminal that can show it, else lines."""

from __future__ import annotations

from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.plain_front import plain_front
from llm_local.terminal.plain_input import may_use_escapes

__all__ = ["best_front"]


def best_front(parts: FrontParts) -> ChatFront:
    """The rich one, but not into a pipe or a file, with TERM=dumb or with NO_COLOR."""
    if not may_use_escapes():
        return plain_front(parts)
    # Late: their import takes as long as all else, and only a person at a terminal has use for it.
    from llm_local.terminal.rich_front import rich_front

    return rich_front(parts)
