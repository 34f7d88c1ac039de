"""What the bodies of `/api/v1` hold. Options are those of the native dialect, and `max_tokens`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from llm_local.api.bodies import DialectModel
from llm_local.api.native.schemas import MAX_KEEP_ALIVE_S, OptionsBody

__all__ = ["LoadModelBody", "MessageBody", "NewChatBody", "PromptBody", "ReplyBody", "SwitchModelBody"]

_MODEL: Any = Field(default=None, max_length=512, description="Absent is the one that is current.")
_CONVERSATION: Any = Field(default=None, max_length=64, description="Absent begins a new conversation.")


class ReplyBody(OptionsBody):
    """What every request for a reply may hold."""

    model: str | None = _MODEL
    max_tokens: int | None = Field(default=None, description="Another name of max_new_tokens.")
    stream: bool = Field(default=False, description="Answer in server-sent events.")


class MessageBody(ReplyBody):
    """A message to answer."""

    message: str = Field(min_length=1)
    conversation_id: str | None = _CONVERSATION
    system_prompt: str | None = Field(
        default=None, description="For a conversation that begins with this message."
    )


class PromptBody(ReplyBody):
    """A text to continue as it is, without chat template."""

    prompt: str


class NewChatBody(DialectModel):
    """A conversation to begin. All of it may be absent."""

    model: str | None = _MODEL
    system_prompt: str | None = None
    title: str = Field(default="", max_length=500)


class SwitchModelBody(DialectModel):
    """The model that a conversation goes on with; without one, the model of the caller's next ones."""

    model: str = Field(min_length=1, max_length=512)
    conversation_id: str | None = Field(default=None, max_length=64)


class LoadModelBody(DialectModel):
    """A model to bring into memory."""

    model: str = Field(min_length=1, max_length=512)
    keep_alive_s: float | None = Field(default=None, ge=-1, le=MAX_KEEP_ALIVE_S)
