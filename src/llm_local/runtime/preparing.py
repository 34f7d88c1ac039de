"""From what a caller asks for to what an engine takes: in a thread, since long texts and grammars take their time."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_local.config import Config
from llm_local.options import GenerationOptions
from llm_local.runtime.kept_replies import cache_key, is_deterministic
from llm_local.runtime.opening import OpenModel
from llm_local.runtime.questions import question_messages, question_options
from llm_local.runtime.work import Work
from llm_local.text.fit import fit

if TYPE_CHECKING:
    from llm_local.engine.protocol import TokenRequest
    from llm_local.generator import PreparedRequest, StepReader

__all__ = ["Opened", "open_again", "open_work", "prepare"]

SEEDS = 1 << 31


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that nothing is wrong with: what goes into the engine, and what reads its steps.

    `cache_key` is set where there can be one reply only.
    """

    prepared: PreparedRequest
    request: TokenRequest
    reader: StepReader
    cache_key: str | None = None


def prepare(model: OpenModel, config: Config, work: Work) -> tuple[PreparedRequest, bool]:
    """Exactly what the model will see, and how it will be sampled; and whether there can be one reply only.

    Raises:
        InvalidRequest: an option or the question cannot be used, or it does not fit the context.
    """
    profiled = config.with_profile(model.generation_defaults)
    options, explicit = question_options(profiled, work.changes)
    prepared = _prepared(model, config, work, options, explicit=explicit and not work.clamp)
    return prepared, is_deterministic(profiled.generation_options().replace(**work.changes))


def open_work(model: OpenModel, config: Config, work: Work, digest: str) -> Opened:
    """The same, with its constraint compiled. `digest` stands for the model where replies are kept; "" where not.

    Raises:
        InvalidRequest: also a constraint that cannot be enforced on this model.
    """
    prepared, only_one = prepare(model, config, work)
    return _opened(model, work, prepared, digest if only_one else "")


def open_again(model: OpenModel, work: Work, first: Opened, number: int, digest: str) -> Opened:
    """The same request with another seed, which the first one's and `number` decide."""
    seed = first.prepared.options.seed
    options = first.prepared.options
    if seed is not None:
        options = options.replace(seed=(seed + number) % SEEDS)
    prepared = dataclasses.replace(first.prepared, options=options)
    return _opened(model, work, prepared, digest if first.cache_key else "")


def _prepared(
    model: OpenModel, config: Config, work: Work, options: GenerationOptions, *, explicit: bool
) -> PreparedRequest:
    generator = model.generator
    if work.messages is not None:
        messages = question_messages(config, work.messages) if work.default_system else work.messages
        prepared = generator.prepare_chat(
            messages,
            options,
            tools=work.tools,
            reserve_explicit=explicit,
            policy=work.policy,
            goes_on=work.goes_on,
        )
    elif work.prompt is not None:
        prepared = generator.prepare_text(work.prompt, options, reserve_explicit=explicit)
    else:
        prepared = generator.prepare_ids(work.prompt_ids or (), options, reserve_explicit=explicit)
    if not work.before_ids:
        return prepared
    return _behind(model, work.before_ids, prepared, options, explicit=explicit)


def _behind(
    model: OpenModel,
    before_ids: tuple[int, ...],
    prepared: PreparedRequest,
    options: GenerationOptions,
    *,
    explicit: bool,
) -> PreparedRequest:
    """The same request behind an earlier prompt and its answer."""
    whole = model.generator.tokens.joined(before_ids, prepared.prompt_ids)
    window = model.info.context_length
    cap = fit(len(whole.token_ids), options.max_new_tokens, window, explicit=explicit)
    return dataclasses.replace(
        prepared,
        prompt_text=whole.text,
        prompt_ids=whole.token_ids,
        options=prepared.options.replace(max_new_tokens=cap),
    )


def _opened(model: OpenModel, work: Work, prepared: PreparedRequest, digest: str) -> Opened:
    owner = work.caller.owner
    request, reader = model.generator.open(prepared, owner=owner, priority=work.priority)
    return Opened(prepared, request, reader, cache_key(owner, digest, prepared) if digest else None)
