"""Between the bodies of `/api/v1` and those of the native dialect. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from llm_local.api.bodies import validate
from llm_local.api.legacy.schemas import MessageBody, PromptBody, ReplyBody
from llm_local.api.native.schemas import ChatBody, GenerateBody, OptionsBody
from llm_local.api.streams import SseEvent
from llm_local.conversations.records import Conversation, StoredMessage
from llm_local.errors import InvalidRequest
from llm_local.service import KnownModel, Loaded

__all__ = [
    "chat_body",
    "conversation_object",
    "loaded_object",
    "message_object",
    "model_object",
    "text_body",
    "to_answer",
    "to_chunk",
]


def chat_body(body: MessageBody, model: str | None, *, begins: bool) -> ChatBody:
    """A message as a native request. `begins`: the conversation has no messages yet.

    A conversation that has grown too long loses its oldest turns, and the answer says how many.

    Raises:
        InvalidRequest: a system prompt for a conversation that goes on, or a field with two values.
    """
    if body.system_prompt is not None and not begins:
        raise InvalidRequest(
            "The conversation has its system prompt already.", "Begin another one.", param="system_prompt"
        )
    turns = [("system", body.system_prompt), ("user", body.message)]
    messages = [{"role": role, "content": text} for role, text in turns if text is not None]
    given = {
        **_options(body),
        "model": model,
        "messages": messages,
        "conversation_id": body.conversation_id,
        "store": body.conversation_id is None,
        "context_policy": "trim-oldest",
    }
    return validate(ChatBody, given)


def text_body(body: PromptBody, model: str | None) -> GenerateBody:
    """A text to continue as a native request.

    Raises:
        InvalidRequest: a field with two values.
    """
    return validate(GenerateBody, {**_options(body), "model": model, "prompt": body.prompt})


def to_answer(native: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A native answer with its text under the name that this dialect has for it."""
    answer = dict(native)
    return {name: answer.pop("text"), **answer}


def to_chunk(event: SseEvent, text: str) -> dict[str, Any] | None:
    """A native event as a chunk, or None where this dialect says nothing. `text`: all that came before the end."""
    data: Any = event.data
    if event.event == "begin":
        return {"id": data["id"], "model": data["model"], "conversation_id": data.get("conversation_id")}
    if event.event == "progress" and data["stage"] == "queued":
        return {"position": data["done"], "waiting": data["total"]}
    if event.event == "delta":
        return {"delta" if data["channel"] == "content" else "reasoning_delta": data["text"]}
    if event.event == "finish":
        return {"done": True, "response": text, **data}
    return None


def conversation_object(conversation: Conversation) -> dict[str, Any]:
    """What is known of a conversation. Whose it is, the reader knows."""
    return {
        "conversation_id": conversation.id,
        "title": conversation.title,
        "model": conversation.model,
        "created": _time(conversation.created),
        "modified": _time(conversation.modified),
        "num_messages": conversation.num_messages,
    }


def message_object(stored: StoredMessage) -> dict[str, Any]:
    """One message of a conversation; a reply that was broken off says so."""
    message = stored.message
    found: dict[str, Any] = {
        "role": message.role,
        "content": message.content,
        "status": stored.status,
        "created": _time(stored.created),
    }
    if message.reasoning:
        found["reasoning"] = message.reasoning
    if message.tool_calls:
        found["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": dict(call.arguments)}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    return found


def model_object(model: KnownModel, current: str) -> dict[str, Any]:
    """One model of this machine."""
    return {
        "name": model.name,
        "current": model.name == current,
        "loaded": model.loaded is not None,
        "architecture": model.architecture or None,
        "num_parameters": model.num_parameters,
        "context_length": model.context_length,
        "dtype": model.dtype or None,
        "size_bytes": model.num_bytes,
        "capabilities": sorted(model.capabilities),
    }


def loaded_object(loaded: Loaded) -> dict[str, Any]:
    """A model in memory."""
    info = loaded.info
    return {
        "device": info.device,
        "dtype": info.dtype,
        "quantization": info.quantization,
        "runs_as": loaded.runs_as,
        "load_s": round(loaded.load_s, 3),
        "expires_in_s": loaded.expires_in_s,
        "memory_bytes": loaded.weight_bytes + loaded.kv_bytes,
    }


def _options(body: ReplyBody) -> dict[str, Any]:
    """The options as they came, `max_tokens` under its own name here."""
    given = {
        name: getattr(body, name)
        for name in OptionsBody.model_fields
        if getattr(body, name) is not None and name != "constraint"
    }
    if body.constraint is not None:
        given["constraint"] = body.constraint.model_dump()
    if body.max_tokens is not None:
        if given.setdefault("max_new_tokens", body.max_tokens) != body.max_tokens:
            raise InvalidRequest(
                "max_tokens and max_new_tokens differ.", "Send one of them.", param="max_tokens"
            )
    return given


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
