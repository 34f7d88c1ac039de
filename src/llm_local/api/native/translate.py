"""Between the native dialect's JSON and the values of the service. Pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from llm_local.api.bodies import DialectModel, unknown_names
from llm_local.api.native.schemas import (
    ChatBody,
    ConstraintBody,
    GenerateBody,
    MessageBody,
    OptionsBody,
    RunBody,
    ToolBody,
)
from llm_local.api.streams import SseEvent
from llm_local.errors import AccessDenied, InvalidRequest
from llm_local.events import (
    Completion,
    ContextTrimmed,
    Delta,
    Event,
    Progress,
    TokenLogprob,
    ToolCallDelta,
    ToolCallEvent,
    Usage,
)
from llm_local.messages import Message, ToolCall, ToolDefinition
from llm_local.options import Constraint, GenerationOptions
from llm_local.service import Caller, Work
from llm_local.specs import ModelInfo

__all__ = [
    "chat_work",
    "given_options",
    "logprobs_list",
    "option_names",
    "real_name",
    "refuse_unknown",
    "text_work",
    "to_event",
    "to_message",
    "usage_object",
    "whole_answer",
]

_THINK: Final = {True: "on", False: "off"}
# What people call these elsewhere.
_OTHER_NAMES: Final = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "num_predict": "max_new_tokens",
    "repeat_penalty": "repetition_penalty",
    "response_format": "constraint",
    "format": "constraint",
    "reasoning_effort": "think",
    "keep_alive": "keep_alive_s",
    "input": "texts",
    "content": "text",
    "tokens": "ids",
    "stream": "path /generate/stream or /chat/stream",
}


def refuse_unknown(body: DialectModel) -> None:
    """Nothing is ignored in our own dialect.

    Raises:
        InvalidRequest: a field that it does not have, by its name.
    """
    name = next(iter(unknown_names(body)), None)
    if name is None:
        return
    known = list(type(body).model_fields)
    near = _OTHER_NAMES.get(name) or next(iter(get_close_matches(name, known, n=1)), None)
    hint = f"Did you mean the {near}?" if near and " " in near else f"Did you mean {near}?" if near else ""
    raise InvalidRequest(
        f"There is no field {name}.", hint or "GET /docs lists the fields.", param=name, kind="unknown_field"
    )


def option_names() -> list[str]:
    """The options that a request may give."""
    return list(OptionsBody.model_fields)


def given_options(body: OptionsBody) -> dict[str, Any]:
    """The options that the caller really gave, as `GenerationOptions.replace` takes them.

    Raises:
        InvalidRequest: one that cannot be.
    """
    found: dict[str, Any] = {}
    for name in OptionsBody.model_fields:
        value = getattr(body, name)
        if value is not None:
            found[name] = _option(name, value)
    GenerationOptions().replace(**found)  # what can be wrong without a model is known before one is loaded
    return found


def text_work(body: GenerateBody | RunBody, caller: Caller, prompt: str | None = None) -> Work:
    """The work that a text to continue is; `prompt` is one of a batch.

    Raises:
        InvalidRequest: no prompt, two of them, or an option that cannot be.
    """
    ids: list[int] | None = None
    if isinstance(body, GenerateBody):
        prompt, ids = body.prompt, body.prompt_ids
        if (prompt is None) == (ids is None):
            raise InvalidRequest("Exactly one of prompt and prompt_ids must be given.", param="prompt")
    return Work(
        caller,
        prompt=prompt,
        prompt_ids=None if ids is None else tuple(ids),
        changes=given_options(body),
        **_shared(body, caller),
    )


def chat_work(body: ChatBody, caller: Caller, before: Sequence[Message] = ()) -> Work:
    """The work that a conversation is; `before` is what is stored of it.

    Raises:
        InvalidRequest: a message, a tool or an option that cannot be.
    """
    changes = given_options(body)
    if body.tool_choice is not None:
        changes["tool_choice"] = body.tool_choice
    return Work(
        caller,
        messages=(*before, *map(to_message, body.messages)),
        tools=tuple(map(_tool, body.tools)),
        changes=changes,
        default_system=body.default_system,
        policy=body.context_policy,
        **_shared(body, caller),
    )


def to_message(body: MessageBody) -> Message:
    """One message.

    Raises:
        InvalidRequest: text that is none.
    """
    calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in body.tool_calls)
    return Message(body.role, body.content, body.name, body.reasoning, calls, body.tool_call_id)


def to_event(event: Event) -> SseEvent | None:
    """One event of a reply, or None for the last, which has more to say than it knows."""
    if isinstance(event, Delta):
        told: dict[str, Any] = {
            "channel": event.channel,
            "text": event.text,
            "token_ids": list(event.token_ids),
        }
        if event.logprobs:
            told["logprobs"] = logprobs_list(event.logprobs)
        return SseEvent(told, "delta")
    if isinstance(event, Progress):
        return SseEvent({"stage": event.stage, "done": event.done, "total": event.total}, "progress")
    if isinstance(event, ToolCallDelta):
        return SseEvent(dataclasses.asdict(event), "tool_call_delta")
    if isinstance(event, ToolCallEvent):
        return SseEvent(_call_object(event.call), "tool_call")
    if isinstance(event, ContextTrimmed):
        return SseEvent(dataclasses.asdict(event), "trimmed")
    return None


def whole_answer(completion: Completion) -> dict[str, Any]:
    """What a reply says, without what is known of how it came to be."""
    answer: dict[str, Any] = {
        "text": completion.text,
        "reasoning": completion.reasoning,
        "tool_calls": [_call_object(call) for call in completion.tool_calls],
    }
    if completion.logprobs:
        answer["token_ids"] = list(completion.token_ids)
        answer["logprobs"] = logprobs_list(completion.logprobs)
    return answer


def real_name(name: str, info: ModelInfo) -> str:
    """What really answers to `name`: another model stands in where the default is not here. Never a path."""
    return name if info.ref.startswith((".", "/", "~")) or "\\" in info.ref else info.ref


def usage_object(usage: Usage) -> dict[str, Any]:
    """Token counts, the total included."""
    return {**dataclasses.asdict(usage), "total_tokens": usage.total_tokens}


def logprobs_list(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Log-probabilities; `top` holds pairs of token id and log-probability, best first."""
    return [
        {"token_id": one.token_id, "logprob": one.logprob, "top": [list(pair) for pair in one.top]}
        for one in logprobs
    ]


def _option(name: str, value: Any) -> Any:
    if name == "stop":
        return (value,) if isinstance(value, str) else tuple(value)
    if name == "think" and isinstance(value, bool):
        return _THINK[value]
    if name == "constraint":
        return _constraint(value)
    if name == "logit_bias":
        return _logit_bias(value)
    return value


def _constraint(body: ConstraintBody) -> Constraint:
    value = tuple(body.value) if isinstance(body.value, list) else body.value
    return Constraint(body.kind, value)


def _logit_bias(given: Mapping[str, float]) -> dict[int, float]:
    found = {}
    for text, bias in given.items():
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            raise InvalidRequest("logit_bias has a key that is not a token id.", param="logit_bias")
        found[int(text)] = bias
    return found


def _tool(body: ToolBody) -> ToolDefinition:
    return ToolDefinition(body.name, body.description, body.parameters, body.strict)


def _shared(body: RunBody, caller: Caller) -> dict[str, Any]:
    if body.priority > 0 and not caller.is_admin:
        raise AccessDenied("A priority above 0 needs a key with the role admin.", "Leave it out.")
    if body.keep_alive_s is not None and not caller.is_admin:
        # it holds for everybody: 0 would take the model away, -1 would keep others out
        raise AccessDenied("keep_alive_s needs a key with the role admin.", "Leave it out.")
    return {
        "model": body.model,
        "keep_alive_s": body.keep_alive_s,
        "deadline_s": body.deadline_s,
        "priority": body.priority,
    }


def _call_object(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "name": call.name, "arguments": dict(call.arguments)}
