"""A request made ready: exactly what the model will see, known to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_local.errors import InvalidRequest
from llm_local.events import Channel, ContextTrimmed
from llm_local.messages import ToolDefinition
from llm_local.options import GenerationOptions
from llm_local.text.fit import MIN_REPLY_TOKENS, fit
from llm_local.text.templates import RenderedPrompt

__all__ = ["PreparedRequest", "make_ready"]


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that is known to fit: exactly what the model will see, and how it will be sampled.

    `stops` are the caller's stop strings and the template's own. `continues` says that the reply goes on in the middle
    of the prompt's text, rather than in a turn of its own; `goes_on` in the middle of which channel of an answer.
    `tools` may be called.
    """

    prompt_text: str
    prompt_ids: tuple[int, ...]
    options: GenerationOptions
    stops: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    continues: bool = False
    tools: tuple[ToolDefinition, ...] = ()
    trimmed: ContextTrimmed | None = None
    goes_on: Channel | None = None


def make_ready(
    rendered: RenderedPrompt,
    options: GenerationOptions,
    tools: Sequence[ToolDefinition],
    context_length: int,
    *,
    explicit: bool,
    least: int = MIN_REPLY_TOKENS,
) -> PreparedRequest:
    """A rendered prompt with its options; `explicit` and `least` are those of `text.fit.fit`.

    Raises:
        InvalidRequest: the prompt has no tokens.
        ContextLengthExceeded: prompt and reserve do not fit the window.
    """
    if not rendered.token_ids:
        raise InvalidRequest("The prompt is empty.", "Give at least one token.", param="prompt")
    cap = fit(len(rendered.token_ids), options.max_new_tokens, context_length, explicit=explicit, least=least)
    return PreparedRequest(
        prompt_text=rendered.text,
        prompt_ids=rendered.token_ids,
        options=options.replace(max_new_tokens=cap),
        # a constrained reply ends by itself, and may hold what ends others
        stops=options.stop + (rendered.stops if options.constraint is None else ()),
        notices=rendered.notices,
        tools=tuple(tools),
        goes_on=rendered.goes_on,
    )
