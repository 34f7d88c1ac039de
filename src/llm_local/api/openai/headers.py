"""What an answer says beside itself: headers, and warnings in the body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_local.api.bodies import DialectModel, ignored_names
from llm_local.api.openai.choices import Choice
from llm_local.api.told_headers import SEED_HEADER, ignored_header, trimmed_header

__all__ = ["reply_headers", "warnings_of"]

_REASONING: Final = ("reasoning_effort", "reasoning", "chat_template_kwargs")
MAX_SEEDS: Final = 128  # clients bound the size of headers


def warnings_of(choices: Sequence[Choice]) -> dict[str, list[str]]:
    """The field `warnings`, where people should know something: that the model has no chat template, and such."""
    notices = dict.fromkeys(notice for choice in choices for notice in choice.reply.notices if notice)
    return {"warnings": list(notices)} if notices else {}


def reply_headers(body: DialectModel, choices: Sequence[Choice], *without_effect: str) -> dict[str, str]:
    """The headers of an answer; `without_effect` are fields that were given in vain."""
    if any(choice.never_reasons for choice in choices):
        without_effect += _REASONING
    headers = ignored_header(ignored_names(body, *without_effect))
    seeds = [choice.reply.options.seed for choice in choices]
    if len(seeds) <= MAX_SEEDS and any(seed is not None for seed in seeds):
        headers[SEED_HEADER] = ", ".join(str(seed) for seed in seeds)
    return headers | trimmed_header(choices[0].reply.trimmed)
