"""From what a caller asks for to what an engine takes: in a thread, since long texts and grammars take their time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_local.config import Config
from llm_local.runtime.opening import OpenModel
from llm_local.runtime.questions import question_messages, question_options
from llm_local.runtime.work import Work

if TYPE_CHECKING:
    from llm_local.engine.protocol import TokenRequest
    from llm_local.generator import PreparedRequest, StepReader

__all__ = ["Opened", "prepare", "prepare_work"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that nothing is wrong with: what goes into the engine, and what reads its steps."""

    prepared: PreparedRequest
    request: TokenRequest
    reader: StepReader


def prepare(model: OpenModel, config: Config, work: Work) -> PreparedRequest:
    """Exactly what the model will see, and how it will be sampled.

    Raises:
        InvalidRequest: an option or the question cannot be used, or it does not fit the context.
    """
    options, explicit = question_options(config.with_profile(model.generation_defaults), work.changes)
    generator = model.generator
    if work.messages is not None:
        messages = question_messages(config, work.messages) if work.default_system else work.messages
        return generator.prepare_chat(
            messages, options, tools=work.tools, reserve_explicit=explicit, policy=work.policy
        )
    if work.prompt is not None:
        return generator.prepare_text(work.prompt, options, reserve_explicit=explicit)
    return generator.prepare_ids(work.prompt_ids or (), options, reserve_explicit=explicit)


def prepare_work(model: OpenModel, config: Config, work: Work) -> Opened:
    """The same, with its constraint compiled.

    Raises:
        InvalidRequest: also a constraint that cannot be enforced on this model.
    """
    prepared = prepare(model, config, work)
    request, reader = model.generator.open(prepared, owner=work.caller.owner, priority=work.priority)
    return Opened(prepared, request, reader)
