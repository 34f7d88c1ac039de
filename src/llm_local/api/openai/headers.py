"""What an answer says beside itself: headers, and warnings in the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_local.api.bodies import IGNORED_HEADER, DialectModel, ignored_names
from llm_local.api.openai.choices import Choice

__all__ = ["SEED_HEADER", "TRIMMED_HEADER", "ignored_header", "reply_headers", "warnings_of"]

TRIMMED_HEADER: Final = "x-llm-local-context-trimmed"
"""How much of a conversation was left out, where the client asked for that."""
SEED_HEADER: Final = "x-llm-local-seed"
"""The seeds of the choices, in their order: sent again with the same request, each gives the same answer.

Left out where there are very many.
"""

_REASONING: Final = ("reasoning_effort", "reasoning", "chat_template_kwargs")
MAX_SEEDS: Final = 128  # clients bound the size of headers


def ignored_header(body: DialectModel, *without_effect: str) -> dict[str, str]:
    """The header that names the fields without effect; none where there are none."""
    names = ignored_names(body, *without_effect)
    return {IGNORED_HEADER: ", ".join(names)} if names else {}


def warnings_of(choices: Sequence[Choice]) -> dict[str, list[str]]:
    """The field `warnings`, where people should know something: that the model has no chat template, and such."""
    notices = dict.fromkeys(notice for choice in choices for notice in choice.reply.notices if notice)
    return {"warnings": list(notices)} if notices else {}


def reply_headers(body: DialectModel, choices: Sequence[Choice], *without_effect: str) -> dict[str, str]:
    """The headers of an answer; `without_effect` are fields that were given in vain."""
    if any(choice.never_reasons for choice in choices):
        without_effect += _REASONING
    headers = ignored_header(body, *without_effect)
    seeds = [choice.reply.options.seed for choice in choices]
    if len(seeds) <= MAX_SEEDS and any(seed is not None for seed in seeds):
        headers[SEED_HEADER] = ", ".join(str(seed) for seed in seeds)
    trimmed = choices[0].reply.trimmed
    if trimmed is not None:
        headers[TRIMMED_HEADER] = f"messages={trimmed.num_messages}, tokens={trimmed.num_tokens}"
    return headers
