"""Chat answers: whole, and in chunks. Pure: events in, JSON out."""

from __future__ import annotations

from typing import Any

from llm_local.api.openai.answers import Head, arguments_text
from llm_local.api.openai.conversation import shown_call_id
from llm_local.api.openai.token_logprobs import TokenBytes, chat_logprobs
from llm_local.events import Completion, Delta, Event, Finish, ToolCallEvent
from llm_local.messages import ToolCall

__all__ = ["ChatChunks", "chat_choice", "usage_chunk"]


def chat_choice(index: int, completion: Completion, token_bytes: TokenBytes | None) -> dict[str, Any]:
    """One choice of a whole answer. `token_bytes` is there where log-probabilities are asked for."""
    message: dict[str, Any] = {"role": "assistant", "content": completion.text, "refusal": None}
    if completion.tool_calls:
        message["content"] = completion.text or None
        message["tool_calls"] = [_call(call) for call in completion.tool_calls]
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    logprobs = None if token_bytes is None else chat_logprobs(completion.logprobs, token_bytes)
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": completion.finish_reason,
    }


class ChatChunks:
    """One choice of a streamed answer: its chunks, first the role, last the reason it ended.

    A call comes as soon as it is whole, since what only looks like one is text. `with_usage` says that a chunk with the
    counts follows, so that all others say they have none.
    """

    def __init__(
        self, head: Head, index: int, token_bytes: TokenBytes | None = None, *, with_usage: bool = False
    ) -> None:
        self._head = head
        self._index = index
        self._token_bytes = token_bytes
        self._more = {"usage": None} if with_usage else {}
        self._num_calls = 0

    def begin(self) -> dict[str, Any]:
        """The chunk with the role, which no other has."""
        return self._chunk({"role": "assistant", "content": ""})

    def feed(self, event: Event) -> list[dict[str, Any]]:
        """The chunks of one event, possibly none."""
        if isinstance(event, Delta):
            return self._text(event)
        if isinstance(event, ToolCallEvent):
            return self._calls(event.call)
        if isinstance(event, Finish):
            return [self._chunk({}, finish_reason=event.reason)]
        return []

    def _text(self, delta: Delta) -> list[dict[str, Any]]:
        logprobs = None
        if self._token_bytes is not None and delta.logprobs:
            logprobs = chat_logprobs(delta.logprobs, self._token_bytes)
        if not delta.text and logprobs is None:
            return []
        name = "content" if delta.channel == "content" else "reasoning_content"
        return [self._chunk({name: delta.text}, logprobs=logprobs)]

    def _calls(self, call: ToolCall) -> list[dict[str, Any]]:
        index = self._num_calls
        self._num_calls += 1
        whole = _call(call)
        arguments = whole["function"]["arguments"]
        opened = {"index": index, **whole, "function": {"name": call.name, "arguments": ""}}
        rest = {"index": index, "function": {"arguments": arguments}}
        return [self._chunk({"tool_calls": [opened]}), self._chunk({"tool_calls": [rest]})]

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._head.body(choices=[choice], **self._more)


def usage_chunk(head: Head, usage: dict[str, Any]) -> dict[str, Any]:
    """The chunk after all others where the client asks for the counts; only it has no choices."""
    return head.body(choices=[], usage=usage)


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": shown_call_id(call.id),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments_text(call.arguments)},
    }
