"""Headers of our own that say the same in every dialect: what was ignored, what was left out, which seed was drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from llm_local.api.bodies import IGNORED_HEADER
from llm_local.events import ContextTrimmed

__all__ = ["SEED_HEADER", "TRIMMED_HEADER", "ignored_header", "trimmed_header"]

TRIMMED_HEADER: Final = "x-llm-local-context-trimmed"
"""How much of a conversation, or of a text to embed, was left out because it was too long."""
SEED_HEADER: Final = "x-llm-local-seed"
"""The seeds of the replies, in their order: sent again with the same request, each gives the same answer."""

_MAX_IGNORED: Final = 32


def ignored_header(names: Iterable[str]) -> dict[str, str]:
    """The header that names the fields without effect; none where there are none."""
    told = list(dict.fromkeys(names))[:_MAX_IGNORED]
    return {IGNORED_HEADER: ", ".join(told)} if told else {}


def trimmed_header(trimmed: ContextTrimmed | None) -> dict[str, str]:
    """The header that says how much of a conversation was left out; none where all of it was read."""
    if trimmed is None:
        return {}
    return {TRIMMED_HEADER: f"messages={trimmed.num_messages}, tokens={trimmed.num_tokens}"}
