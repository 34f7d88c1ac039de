"""From Ollama's requests to work for the service. Pure: nothing here waits, reads or asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from llm_local.api.bodies import ignored_names
from llm_local.api.ollama.conversation import messages_of, tools_of
from llm_local.api.ollama.durations import keep_alive_s
from llm_local.api.ollama.errors import lacks
from llm_local.api.ollama.options import ReadOptions, read_options
from llm_local.api.ollama.schemas import OllamaChat, OllamaGenerate, OllamaReply
from llm_local.errors import InvalidRequest
from llm_local.messages import Message
from llm_local.options import Constraint, Think
from llm_local.service import Caller, Work

if TYPE_CHECKING:
    from llm_local.loaders.card import ModelCard

__all__ = ["Asked", "chat_work", "generate_work", "ignored_fields", "only_loads", "warnings_of"]

_LEVELS: Final[dict[str, Think]] = {"low": "low", "medium": "medium", "high": "high", "max": "high"}


class Asked:
    """A request with what it says already read: who asks, which model under our name, and the options.

    `card` is what the model's files tell, where the request says something that depends on it. `ignored`: fields that
    only admins may use. Clients send `keep_alive` with everything, and it holds for everybody who uses the model.
    """

    def __init__(
        self, body: OllamaReply, caller: Caller, model: str, card: ModelCard | None, *, capped: bool
    ) -> None:
        """Raises InvalidRequest when an option, or `keep_alive`, cannot be used."""
        self.body = body
        self.caller = caller
        self.model = model
        self.card = card
        self.options: ReadOptions = read_options(body.options, capped=capped)
        stays_s = keep_alive_s(body.keep_alive)
        self.keep_alive_s = stays_s if caller.is_admin else None
        self.ignored = () if caller.is_admin or stays_s is None else ("keep_alive",)


def only_loads(body: OllamaGenerate | OllamaChat) -> bool:
    """True of a request that says nothing to the model: it is about the model itself."""
    return not (body.messages if isinstance(body, OllamaChat) else body.prompt)


def chat_work(asked: Asked, body: OllamaChat) -> Work:
    """A chat request as work.

    Raises:
        InvalidRequest: naming what cannot be used.
    """
    tools = tools_of(body.tools)
    if tools and asked.card is not None and not asked.card.chat_template:
        raise lacks(body.model, "tools", "tools")
    return Work(
        asked.caller,
        model=asked.model,
        messages=messages_of(body.messages or (), body.model),
        tools=tools,
        changes=_changes(asked, body),
        policy="refuse" if body.truncate is False else "trim-oldest",
        clamp=True,
        keep_alive_s=asked.keep_alive_s,
    )


def generate_work(asked: Asked, body: OllamaGenerate) -> Work:
    """A request to generate as work: a conversation of one message, or the prompt as it is.

    That is what `raw` asks for, and what a model without a chat template is made for.

    Raises:
        InvalidRequest: naming what cannot be used.
    """
    if body.images:
        raise lacks(body.model, "images", "images")
    if body.suffix:
        raise lacks(body.model, "insert", "suffix")
    if body.raw and (body.system or body.template or body.context):
        raise InvalidRequest("raw mode does not support template, system, or context", param="raw")
    if body.template:
        raise InvalidRequest(
            "template is not supported.",
            "Send a prompt that is rendered already, with raw.",
            param="template",
        )
    has_template = asked.card is None or bool(asked.card.chat_template)
    work: dict[str, Any] = {
        "model": asked.model,
        "clamp": True,
        "keep_alive_s": asked.keep_alive_s,
        "before_ids": tuple(body.context or ()),
    }
    prompt = body.prompt or ""
    if body.raw or not (has_template or body.system):
        return Work(asked.caller, prompt=prompt, changes=_changes(asked, body, raw=True), **work)
    system = (Message("system", body.system),) if body.system else ()
    return Work(
        asked.caller,
        messages=(*system, Message("user", prompt)),
        changes=_changes(asked, body),
        default_system=not body.context,  # it stands in the context already
        **work,
    )


def ignored_fields(body: OllamaReply, options: ReadOptions) -> tuple[str, ...]:
    """The fields of a request for a reply that have no effect here. The window is never shifted."""
    shifts = ("shift",) if body.shift else ()
    empty = [
        name for name in ("suffix", "template") if name in body.model_fields_set and not getattr(body, name)
    ]
    return (*(name for name in ignored_names(body, *shifts) if name not in empty), *options.ignored)


def warnings_of(
    options: ReadOptions, context_length: int, trimmed: tuple[int, int] | None, notices: Sequence[str]
) -> list[str]:
    """What people should know of a reply. `trimmed`: messages and tokens that were left out."""
    found = list(notices)
    if trimmed is not None:
        found.append(
            f"The conversation was too long: {trimmed[0]} of its oldest messages, {trimmed[1]} tokens, were left out."
        )
    if options.num_ctx is not None and options.num_ctx > context_length:
        found.append(
            f"num_ctx is {options.num_ctx}, but the model's context length is {context_length} tokens."
        )
    return found


def _changes(asked: Asked, body: OllamaReply, *, raw: bool = False) -> dict[str, Any]:
    changes = dict(asked.options.changes)
    if body.logprobs:
        changes |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    elif body.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true.", param="top_logprobs")
    constraint = _constraint(body.format)
    if constraint is not None:
        changes["constraint"] = constraint
    think = _think(body, asked.card, raw=raw)
    if think is not None:
        changes["think"] = think
    return changes


def _constraint(form: Any) -> Constraint | None:
    if form is None or form == "":
        return None
    if form == "json":
        return Constraint("json")
    if not isinstance(form, dict):
        shown = f'"{form[:40]}"' if isinstance(form, str) else "no text"
        raise InvalidRequest(
            f'invalid format: {shown}; expected "json" or a valid JSON Schema object', param="format"
        )
    try:
        return Constraint("json_schema", form)
    except InvalidRequest as error:
        raise InvalidRequest(f"invalid format: {error.message}", error.hint, param="format") from None


def _think(body: OllamaReply, card: ModelCard | None, *, raw: bool) -> Think | None:
    """What `think` changes; nothing where the model does by itself what is asked."""
    if body.think is None:
        return None
    if isinstance(body.think, str) and body.think not in _LEVELS:
        raise InvalidRequest(
            f'invalid think value: "{body.think[:40]}" (must be "high", "medium", "low", "max", true, or false)',
            param="think",
        )
    thinking = None if card is None else card.capabilities.thinking
    if body.think is False:
        return None if raw or thinking == "" else "off"
    if thinking == "":
        raise lacks(body.model, "thinking", "think")
    if body.think is True:
        return None if thinking == "always or by itself" else "on"
    return _LEVELS[str(body.think)]
