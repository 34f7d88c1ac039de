"""A model to ask, and a question made ready for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_local.config import Config
from llm_local.events import Progress
from llm_local.messages import Message
from llm_local.options import GenerationOptions
from llm_local.specs import ModelInfo

if TYPE_CHECKING:
    from llm_local.generator import PreparedRequest, TextGenerator

__all__ = ["OpenModel", "open_model", "prepare_question", "question_messages", "question_options"]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model ready to answer. `notices` are lines people should see: another model than the default, and such."""

    generator: TextGenerator
    info: ModelInfo
    generation_defaults: Mapping[str, Any]
    load_s: float
    notices: tuple[str, ...] = ()


def open_model(config: Config, on_progress: Callable[[Progress], None]) -> OpenModel:
    """Find the model of `config`, download it where needed and allowed, and load it.

    Raises:
        LocalLLMError: it cannot be found, reached, read or held in memory.
    """
    # Late: what can be wrong without a model is found without it.
    from llm_local.model_loader import load_tokenizer_and_model, resolve_model

    resolved = resolve_model(
        config.model_spec(),
        explicit=config.is_explicit("model_id"),
        offline=config.offline,
        on_progress=on_progress,
    )
    draft_spec, draft = config.draft_spec(), None
    if draft_spec is not None:
        found = resolve_model(draft_spec, explicit=True, offline=config.offline, on_progress=on_progress)
        draft = load_tokenizer_and_model(found.spec, path=found.path, on_progress=on_progress, quick=True)
    loaded = load_tokenizer_and_model(resolved.spec, path=resolved.path, on_progress=on_progress, quick=True)
    # Late: it imports torch, and most failures are known by now.
    from llm_local.generator import TextGenerator

    return OpenModel(
        TextGenerator(loaded, engine_options=config.engine_options(), draft=draft),
        loaded.info,
        loaded.generation_defaults,
        loaded.load_s,
        (resolved.notice, *loaded.notices),
    )


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


def question_options(config: Config, changes: Mapping[str, Any]) -> tuple[GenerationOptions, bool]:
    """The options of a question, with a seed; and whether somebody chose its `max_new_tokens`."""
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
