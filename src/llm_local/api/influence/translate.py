"""From Influence's requests to work for the service, and from our answers to its. Pure."""

from __future__ import annotations

from typing import Any, Final

from llm_local.api.influence.schemas import InfluenceRequest
from llm_local.api.streams import SseEvent
from llm_local.errors import InvalidRequest
from llm_local.messages import Message
from llm_local.options import BOUNDS, GenerationOptions
from llm_local.service import Caller, Work

__all__ = ["influence_work", "shown_answer", "shown_event"]

_OURS: Final = {"repeat_penalty": "repetition_penalty"}
_THEIRS: Final = {"repetition_penalty": "repeat_penalty"}
_SAME: Final = ("temperature", "top_k", "seed", "repeat_penalty")
# A nucleus that holds one token: what top_p 0 means, which our own bound leaves out.
_LEAST_TOP_P: Final = 1e-9
_KEPT: Final = ("model", "answered_by", "seed", "finish_reason", "usage", "timings", "speed", "notices")


def influence_work(request: InfluenceRequest, caller: Caller) -> Work:
    """A request as work.

    Raises:
        InvalidRequest: naming the field that cannot be used.
    """
    changes: dict[str, Any] = {_OURS.get(name, name): getattr(request, name) for name in _SAME}
    changes["top_p"] = None if request.top_p is None else max(request.top_p, _LEAST_TOP_P)
    if request.max_tokens is not None:  # no window is longer than our own bound
        changes["max_new_tokens"] = min(request.max_tokens, int(BOUNDS["max_new_tokens"].high))
    if request.stop is not None:
        changes["stop"] = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop)
    changes = {name: value for name, value in changes.items() if value is not None}
    try:
        GenerationOptions().replace(**changes)
    except InvalidRequest as error:
        error.param = _THEIRS.get(error.param or "", error.param)
        raise
    if not request.prompt:
        raise InvalidRequest("The prompt is empty.", "Give at least one character.", param="prompt")
    asked: dict[str, Any] = {"model": request.model, "changes": changes, "clamp": True}
    if not (request.system or "").strip():
        return Work(caller, prompt=request.prompt, **asked)
    messages = (Message("system", request.system or ""), Message("user", request.prompt))
    return Work(caller, messages=messages, **asked)


def shown_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """A whole answer: `text`, which is all that Influence tells, then what else is known of it."""
    counted = {"text": answer["text"], "tokens_generated": answer["usage"]["completion_tokens"]}
    return counted | {name: answer[name] for name in _KEPT}


def shown_event(event: SseEvent) -> SseEvent | None:
    """An event of a native stream: pieces of the answer are text as it is, the last has the counts; None for others."""
    if event.event == "delta" and event.data["channel"] == "content" and event.data["text"]:
        return SseEvent(event.data["text"], "token")
    return event if event.event == "finish" else None
