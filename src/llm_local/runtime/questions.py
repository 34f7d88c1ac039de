"""A question made ready for a model: whose options hold, and which system prompt."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from llm_local.config import Config
from llm_local.messages import Message
from llm_local.options import GenerationOptions

__all__ = ["question_messages", "question_options"]


def question_options(config: Config, changes: Mapping[str, Any]) -> tuple[GenerationOptions, bool]:
    """The options of a question, with a seed; and whether somebody chose its `max_new_tokens`.

    Raises:
        InvalidRequest: an option that does not exist, or a value out of its bound.
    """
    options = config.generation_options().replace(**changes)
    if options.seed is None and not options.greedy:
        options = options.replace(seed=secrets.randbits(31))  # drawn here, so that the run can be repeated
    explicit = config.is_explicit("max_new_tokens") or changes.get("max_new_tokens") is not None
    return options, explicit


def question_messages(config: Config, question: str | Sequence[Message]) -> list[Message]:
    """A question as a conversation. The system prompt of `config` comes first, unless there is one."""
    messages = [Message("user", question)] if isinstance(question, str) else list(question)
    if config.system_prompt and all(message.role != "system" for message in messages):
        messages.insert(0, Message("system", config.system_prompt))
    return messages
