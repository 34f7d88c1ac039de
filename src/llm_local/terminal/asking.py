"""A question made ready for an open model, as every command that asks one does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_local.config import Config
from llm_local.messages import Message
from llm_local.runtime.opening import OpenModel, open_model
from llm_local.runtime.questions import question_messages, question_options

if TYPE_CHECKING:
    from llm_local.generator import PreparedRequest, TextGenerator

__all__ = ["OpenModel", "open_model", "prepare_question", "question_messages", "question_options"]


def prepare_question(
    generator: TextGenerator,
    config: Config,
    question: str | Sequence[Message],
    changes: Mapping[str, Any],
    *,
    raw: bool,
) -> PreparedRequest:
    """A prompt, or a conversation, with the settings of `config` and the options that `changes` says otherwise.

    The system prompt of `config` comes first, unless the conversation has one. A seed is drawn where none is given.

    Raises:
        InvalidRequest: an option or the question cannot be used, or it does not fit the context.
    """
    options, explicit = question_options(config, changes)
    if isinstance(question, str) and raw:
        return generator.prepare_text(question, options, reserve_explicit=explicit)
    return generator.prepare_chat(question_messages(config, question), options, reserve_explicit=explicit)
