"""What the Responses API answers: the events of its stream, which end in the whole answer. Pure.

An answer that is not streamed is the last event of one that is, so the two never differ.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llm_local.api.openai.answers import Tally, arguments_text, new_id
from llm_local.api.openai.conversation import shown_call_id
from llm_local.api.openai.response_schemas import ResponsesRequest
from llm_local.api.openai.token_logprobs import TokenBytes, chat_logprobs
from llm_local.events import Delta, Event, Finish, ToolCallEvent
from llm_local.messages import ToolCall
from llm_local.options import GenerationOptions

__all__ = ["ResponseEvents", "response_body"]

JsonObject = dict[str, Any]

_STATUSES: Final[Mapping[str, str]] = {"length": "incomplete"}


def response_body(request: ResponsesRequest, options: GenerationOptions) -> JsonObject:
    """The answer before anything has come: what it repeats of the request, and the options as they hold."""
    form = None if request.text is None else request.text.format
    shown_form = {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)
    reasoning = request.reasoning
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "model": request.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {
            "effort": None if reasoning is None else reasoning.effort,
            "summary": None if reasoning is None else reasoning.summary,
        },
        "store": False,
        "temperature": options.temperature,
        "text": {"format": shown_form},
        "tool_choice": request.tool_choice or "auto",
        "tools": [_shown_tool(tool.model_dump()) for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": options.top_p,
        "truncation": request.truncation or "disabled",
        "usage": None,
        "user": request.user,
        "metadata": request.metadata or {},
    }


@dataclass(slots=True)
class _OpenItem:
    """The message or the reasoning that is being written."""

    kind: str
    item: JsonObject
    text: list[str] = field(default_factory=list)
    logprobs: list[JsonObject] = field(default_factory=list)


class ResponseEvents:
    """Makes the events of one answer. `response` is the answer as far as it has come."""

    def __init__(self, response: JsonObject, token_bytes: TokenBytes | None = None) -> None:
        self.response = response
        self._token_bytes = token_bytes
        self._tally = Tally()
        self._open: _OpenItem | None = None
        self._made: list[JsonObject] = []
        self._number = 0

    def begin(self) -> list[JsonObject]:
        """The events that come before all others."""
        self._emit("response.created", response=dict(self.response))
        self._emit("response.in_progress", response=dict(self.response))
        return self._taken()

    def feed(self, event: Event) -> list[JsonObject]:
        """The events that one of ours becomes, possibly none."""
        self._tally.feed(event)
        if isinstance(event, Delta):
            self._add(event)
        elif isinstance(event, ToolCallEvent):
            self._close("completed")
            self._add_call(event.call)
        elif isinstance(event, Finish):
            self._finish(event.reason)
        return self._taken()

    def fail(self, code: str, message: str) -> JsonObject:
        """The event of an answer that cannot go on."""
        self.response |= {"status": "failed", "error": {"code": code, "message": message}}
        self._emit("response.failed", response=self.response)
        return self._taken()[-1]

    def _add(self, delta: Delta) -> None:
        kind = "message" if delta.channel == "content" else "reasoning"
        same = self._open is not None and self._open.kind == kind
        if not delta.text and not (same and delta.logprobs and self._token_bytes):
            return
        if not same:
            self._close("completed")
            self._begin_message() if kind == "message" else self._begin_reasoning()
        if self._open is None:
            return
        self._open.text.append(delta.text)
        if kind == "reasoning":
            self._emit_part("response.reasoning_summary_text.delta", delta=delta.text)
            return
        logprobs = []
        if self._token_bytes is not None:
            logprobs = chat_logprobs(delta.logprobs, self._token_bytes)["content"]
            self._open.logprobs += logprobs
        self._emit_part("response.output_text.delta", delta=delta.text, logprobs=logprobs)

    def _begin_message(self) -> None:
        item = {
            "id": new_id("msg_"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        self._begin_item("message", item)
        self._emit_part("response.content_part.added", part=_text_part("", []))

    def _begin_reasoning(self) -> None:
        self._begin_item("reasoning", {"id": new_id("rs_"), "type": "reasoning", "summary": []})
        self._emit_part("response.reasoning_summary_part.added", part=_summary_part(""))

    def _begin_item(self, kind: str, item: JsonObject) -> None:
        self._open = _OpenItem(kind, item)
        self._emit("response.output_item.added", output_index=self._index, item=dict(item))

    def _close(self, status: str) -> None:
        """End the item that is open."""
        if self._open is None:
            return
        text, item = "".join(self._open.text), self._open.item
        if self._open.kind == "message":
            part = _text_part(text, self._open.logprobs)
            self._emit_part("response.output_text.done", text=text, logprobs=self._open.logprobs)
            self._emit_part("response.content_part.done", part=part)
            item |= {"status": status, "content": [part]}
        else:
            part = _summary_part(text)
            self._emit_part("response.reasoning_summary_text.done", text=text)
            self._emit_part("response.reasoning_summary_part.done", part=part)
            item |= {"summary": [part]}
        self._open = None
        self._end_item(item)

    def _end_item(self, item: JsonObject) -> None:
        self._emit("response.output_item.done", output_index=self._index, item=item)
        self.response["output"] = [*self.response["output"], item]

    def _add_call(self, call: ToolCall) -> None:
        """A call comes whole: what only looks like one is text."""
        arguments = arguments_text(call.arguments)
        item = {
            "id": new_id("fc_"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": shown_call_id(call.id),
            "name": call.name,
            "arguments": "",
        }
        place = {"item_id": item["id"], "output_index": self._index}
        self._emit("response.output_item.added", output_index=self._index, item=item)
        self._emit("response.function_call_arguments.delta", **place, delta=arguments)
        self._emit("response.function_call_arguments.done", **place, name=call.name, arguments=arguments)
        self._end_item({**item, "status": "completed", "arguments": arguments})

    def _finish(self, reason: str) -> None:
        status = _STATUSES.get(reason, "completed")
        if self._open is None and not self.response["output"]:
            self._begin_message()  # clients look for one
        self._close(status)
        self.response |= {"status": status, "usage": _usage(self._tally)}
        if status == "incomplete":
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self.response["completed_at"] = int(time.time())
        self._emit(f"response.{status}", response=self.response)

    @property
    def _index(self) -> int:
        return len(self.response["output"])

    def _emit_part(self, kind: str, **more: Any) -> None:
        """An event about the one part of the item that is open."""
        if self._open is not None:
            place = "content_index" if self._open.kind == "message" else "summary_index"
            self._emit(kind, item_id=self._open.item["id"], output_index=self._index, **{place: 0}, **more)

    def _emit(self, kind: str, **more: Any) -> None:
        self._made.append({"type": kind, "sequence_number": self._number, **more})
        self._number += 1

    def _taken(self) -> list[JsonObject]:
        made, self._made = self._made, []
        return made


def _text_part(text: str, logprobs: list[JsonObject]) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _summary_part(text: str) -> JsonObject:
    return {"type": "summary_text", "text": text}


def _shown_tool(tool: JsonObject) -> JsonObject:
    """A tool as an answer repeats it: OpenAI's types want both of these."""
    return {**tool, "parameters": tool.get("parameters"), "strict": bool(tool.get("strict"))}


def _usage(tally: Tally) -> JsonObject:
    return {
        "input_tokens": tally.prompt_tokens,
        # writing to the cache costs nobody anything here; clients want the number
        "input_tokens_details": {"cached_tokens": tally.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": tally.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": tally.reasoning_tokens},
        "total_tokens": tally.prompt_tokens + tally.completion_tokens,
    }
