"""Leaving a forward pass that nobody waits for any more: a prompt of a large model takes seconds to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from llm_local.engine.sequence import Chunk

__all__ = ["MANY_TOKENS", "Abandoned", "leave_if_abandoned", "leaving_between_layers"]

# So many take so long that between two layers there is time to look whether somebody still waits for them.
MANY_TOKENS: Final = 64


class Abandoned(Exception):
    """All sequences of a forward pass were cancelled while it ran. What it computed counts for none of them."""


def leave_if_abandoned(chunks: Sequence[Chunk]) -> None:
    """Raise Abandoned when each of the chunks is of a sequence that was cancelled.

    To be called between two layers: the handler of a signal runs there, and another thread's `cancel` is seen.
    """
    if all(chunk.sequence.root.cancelled for chunk in chunks):
        raise Abandoned


@contextmanager
def leaving_between_layers(model: Any, chunks: Sequence[Chunk]) -> Iterator[None]:
    """While this lasts, layers of a model of transformers begin with `leave_if_abandoned`, if there is much to do."""
    if sum(chunk.length for chunk in chunks) < MANY_TOKENS:
        yield
        return
    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    layers = max(lists, key=len, default=())
    hooks = [layer.register_forward_pre_hook(lambda *_: leave_if_abandoned(chunks)) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
