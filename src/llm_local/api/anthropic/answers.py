"""What Anthropic's clients read: the events of a stream, and the message they add up to. Pure.

An answer that is not streamed is the message of one that is, so the two never differ.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from llm_local.api.anthropic.conversation import shown_call_id
from llm_local.events import Channel, Delta, Event, Finish, FinishReason, ToolCallEvent
from llm_local.messages import ToolCall

__all__ = ["PING", "MessageEvents", "new_message"]

JsonObject = dict[str, Any]

PING: Final[JsonObject] = {"type": "ping"}
_REASONS: Final[Mapping[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "cancelled": "end_turn",
}


def new_message(model: str, prompt_tokens: int, notices: Sequence[str] = ()) -> JsonObject:
    """The message before anything has come. `model` is the name as it was asked for.

    Every token of the prompt is in `input_tokens`, as `count_tokens` tells it: the parts that Anthropic prices apart
    are 0, and clients that add them up get it right. `warnings` is ours, and there when there are any.
    """
    told = [notice for notice in dict.fromkeys(notices) if notice]
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(prompt_tokens, 0),
        **({"warnings": told} if told else {}),
    }


class MessageEvents:
    """Makes the events of one answer. `message` is the answer as far as it has come.

    - `stops`: the stop sequences of the request; a reply may also end at one that is the model's own.
    - `hides_thinking`: the client wants no text of the reasoning.
    """

    def __init__(
        self, message: JsonObject, stops: Sequence[str] = (), *, hides_thinking: bool = False
    ) -> None:
        self.message = message
        self._stops = stops
        self._hides_thinking = hides_thinking
        self._open: Channel | None = None
        self._texts: list[str] = []
        self._thinking_tokens = 0
        self._made: list[JsonObject] = []

    def begin(self) -> list[JsonObject]:
        """The events that come before all others."""
        self._emit("message_start", message=dict(self.message))
        self._made.append(PING)
        return self._taken()

    def feed(self, event: Event) -> list[JsonObject]:
        """The events that one of ours becomes, possibly none."""
        if isinstance(event, Delta):
            self._add(event)
        elif isinstance(event, ToolCallEvent):
            self._close()
            self._add_call(event.call)
        elif isinstance(event, Finish):
            self._finish(event)
        return self._taken()

    def _add(self, delta: Delta) -> None:
        if delta.channel == "reasoning":
            self._thinking_tokens += len(delta.token_ids)
        if not delta.text:
            return
        if delta.channel != self._open:
            self._close()
            self._begin(delta.channel)
        self._texts.append(delta.text)
        if delta.channel == "content":
            self._emit_delta({"type": "text_delta", "text": delta.text})
        elif not self._hides_thinking:
            self._emit_delta({"type": "thinking_delta", "thinking": delta.text})

    def _begin(self, channel: Channel) -> None:
        self._open = channel
        block = _text_block("") if channel == "content" else _thinking_block("", "")
        self._emit("content_block_start", index=self._index, content_block=block)

    def _close(self) -> None:
        """End the block that is open."""
        if self._open is None:
            return
        text = "".join(self._texts)
        if self._open == "content":
            block = _text_block(text)
        else:
            signature = _signature(text)
            self._emit_delta({"type": "signature_delta", "signature": signature})
            block = _thinking_block("" if self._hides_thinking else text, signature)
        self._end(block)
        self._open = None
        self._texts.clear()

    def _add_call(self, call: ToolCall) -> None:
        """A call comes whole: what only looks like one is text."""
        block = {"type": "tool_use", "id": shown_call_id(call.id), "name": call.name}
        self._emit("content_block_start", index=self._index, content_block={**block, "input": {}})
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        self._emit_delta({"type": "input_json_delta", "partial_json": arguments})
        self._end({**block, "input": dict(call.arguments)})

    def _end(self, block: JsonObject) -> None:
        self._emit("content_block_stop", index=self._index)
        self.message["content"] = [*self.message["content"], block]

    def _finish(self, finish: Finish) -> None:
        if self._open is None and not self.message["content"]:
            self._begin("content")  # clients look for one
        self._close()
        usage = self.message["usage"]
        told = {
            "stop_reason": _REASONS[finish.reason],
            "stop_sequence": None,
        }
        if finish.reason == "stop" and finish.stop in self._stops:
            told = {"stop_reason": "stop_sequence", "stop_sequence": finish.stop}
        usage = _usage(usage["input_tokens"], finish.usage.completion_tokens)
        usage["output_tokens_details"] = {"thinking_tokens": self._thinking_tokens}
        usage["cached_tokens"] = finish.usage.cached_tokens
        self.message |= {**told, "usage": usage}
        self._emit("message_delta", delta=told, usage=usage)
        self._emit("message_stop")

    @property
    def _index(self) -> int:
        return len(self.message["content"])

    def _emit_delta(self, delta: JsonObject) -> None:
        self._emit("content_block_delta", index=self._index, delta=delta)

    def _emit(self, kind: str, **more: Any) -> None:
        self._made.append({"type": kind, **more})

    def _taken(self) -> list[JsonObject]:
        made, self._made = self._made, []
        return made


def _usage(input_tokens: int, output_tokens: int) -> JsonObject:
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _text_block(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _thinking_block(thinking: str, signature: str) -> JsonObject:
    return {"type": "thinking", "thinking": thinking, "signature": signature}


def _signature(thinking: str) -> str:
    """Clients send back no reasoning without one. It is a digest: here is nothing to prove."""
    return hashlib.sha256(thinking.encode("utf-8", "replace")).hexdigest()
