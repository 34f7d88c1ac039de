"""What Ollama's answers say: parts, their end, and whole ones. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from llm_local.api.ollama.durations import nanoseconds, timestamp
from llm_local.events import Completion, Delta, Event, Finish, TokenLogprob, ToolCallEvent
from llm_local.messages import ToolCall

__all__ = ["AnswerWords", "done_reason", "metrics_of"]

TokenBytes = Callable[[int], bytes]

# JSON has no infinity.
_LEAST_LOGPROB: Final = -9999.0


class AnswerWords:
    """How one answer is told: of `/api/chat` in messages, of `/api/generate` in responses.

    `model` is the name as it was asked for. `token_bytes` is there where log-probabilities are asked for.
    """

    def __init__(self, model: str, *, in_messages: bool, token_bytes: TokenBytes | None = None) -> None:
        self._model = model
        self._in_messages = in_messages
        self._token_bytes = token_bytes
        self._num_calls = 0

    def part(self, event: Event) -> dict[str, Any] | None:
        """The part of one event; None where it says nothing. A call comes as soon as it is whole."""
        if isinstance(event, ToolCallEvent):
            call = _call(event.call, self._num_calls)
            self._num_calls += 1
            return {**self._head(), **self._said("", calls=[call]), "done": False}
        if not isinstance(event, Delta):
            return None
        logprobs = self._logprobs(event.logprobs)
        if not event.text and not logprobs:
            return None
        if event.channel == "reasoning":
            said = self._said("", event.text)
        else:
            said = self._said(event.text)
        return {**self._head(), **said, "done": False, **logprobs}

    def end(self, reason: str, more: Mapping[str, Any]) -> dict[str, Any]:
        """The last part. `more` is what is known at the end only."""
        return {**self._head(), **self._said(""), "done": True, "done_reason": reason, **more}

    def whole(self, completion: Completion, more: Mapping[str, Any]) -> dict[str, Any]:
        """All of it at once."""
        calls = [_call(call, number) for number, call in enumerate(completion.tool_calls)]
        said = self._said(completion.text, completion.reasoning, calls)
        done = {"done": True, "done_reason": done_reason(completion.finish_reason)}
        return {**self._head(), **said, **done, **more, **self._logprobs(completion.logprobs)}

    def _head(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": timestamp(time.time_ns())}

    def _said(self, text: str, thinking: str = "", calls: Sequence[Any] = ()) -> dict[str, Any]:
        thought = {"thinking": thinking} if thinking else {}
        if not self._in_messages:
            return {"response": text, **thought}
        called = {"tool_calls": list(calls)} if calls else {}
        return {"message": {"role": "assistant", "content": text, **thought, **called}}

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
        if self._token_bytes is None or not logprobs:
            return {}
        return {"logprobs": [_entry(one, self._token_bytes) for one in logprobs]}


def done_reason(finish_reason: str) -> str:
    """Ollama's word for why a reply ended: a call is an end like any other."""
    return "length" if finish_reason == "length" else "stop"


def metrics_of(finish: Finish, total_s: float) -> dict[str, int]:
    """Counts, and times in nanoseconds. `prompt_eval_count` is all tokens of the prompt, cached ones included."""
    usage, timings = finish.usage, finish.timings
    return {
        "total_duration": nanoseconds(total_s),
        "load_duration": nanoseconds(timings.load_s),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(timings.prefill_s),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(timings.decode_s),
    }


def _call(call: ToolCall, index: int) -> dict[str, Any]:
    return {
        "id": call.id,
        "function": {"index": index, "name": call.name, "arguments": dict(call.arguments)},
    }


def _entry(found: TokenLogprob, token_bytes: TokenBytes) -> dict[str, Any]:
    entry = _token(found.token_id, found.logprob, token_bytes)
    if found.top:
        entry["top_logprobs"] = [_token(token_id, logprob, token_bytes) for token_id, logprob in found.top]
    return entry


def _token(token_id: int, logprob: float, token_bytes: TokenBytes) -> dict[str, Any]:
    raw = token_bytes(token_id)
    return {
        "token": raw.decode("utf-8", "replace"),
        "logprob": max(logprob, _LEAST_LOGPROB),
        "bytes": list(raw),
    }
