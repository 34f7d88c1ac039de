"""What an answer calls the model that gave it."""

from __future__ import annotations

from llm_local.store.names import STARTER

__all__ = ["told_model"]


def told_model(asked: str, answering: str) -> str:
    """The name as it was asked for, in whatever spelling of its dialect; but of the starter that stands in, its own.

    `answering` is the name that the service tells, such as `ServedReply.model`.
    """
    stands_in = answering == STARTER and asked.lower().removesuffix(":latest") != STARTER
    return answering if stands_in else asked
