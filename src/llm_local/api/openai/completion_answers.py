"""Text completions: whole, and in chunks. Pure: events in, JSON out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_local.api.openai.answers import Head
from llm_local.api.openai.token_logprobs import CompletionLogprobs
from llm_local.events import Delta, Event, Finish, TokenLogprob

__all__ = ["CompletionChunks", "Echo", "whole_choice"]


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that goes in front of its completion; `tokens` are there where log-probabilities are asked for."""

    text: str
    tokens: tuple[tuple[int, TokenLogprob | None], ...] = ()


class CompletionChunks:
    """One choice of a completion, streamed. `logprobs` is there where they are asked for."""

    def __init__(
        self,
        head: Head,
        index: int,
        *,
        echo: Echo | None = None,
        logprobs: CompletionLogprobs | None = None,
        with_usage: bool = False,
    ) -> None:
        self._head = head
        self._index = index
        self._echo = echo
        self._logprobs = logprobs
        self._more = {"usage": None} if with_usage else {}

    def begin(self) -> list[dict[str, Any]]:
        """The prompt, where it is to be repeated."""
        if self._echo is None:
            return []
        return [self._chunk(self._echo.text, tokens=self._echo.tokens)]

    def feed(self, event: Event) -> list[dict[str, Any]]:
        """The chunks of one event, possibly none."""
        if isinstance(event, Delta) and (event.text or (self._logprobs is not None and event.logprobs)):
            return [self._chunk(event.text, tokens=[(one.token_id, one) for one in event.logprobs])]
        if isinstance(event, Finish):
            return [self.end(event.reason)]
        return []

    def end(self, finish_reason: str) -> dict[str, Any]:
        """The last chunk."""
        return self._chunk("", finish_reason=finish_reason)

    def _chunk(
        self,
        text: str,
        *,
        tokens: Sequence[tuple[int, TokenLogprob | None]] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        logprobs = self._logprobs.feed(tokens) if self._logprobs is not None and tokens else None
        choice = {"text": text, "index": self._index, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._head.body(choices=[choice], **self._more)


def whole_choice(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The choice that the chunks of one add up to: what is streamed and what is not can then never differ."""
    parts = [chunk["choices"][0] for chunk in chunks]
    found = [part["logprobs"] for part in parts if part["logprobs"] is not None]
    logprobs = None
    if found:
        logprobs = {
            key: [entry for one in found for entry in one[key]] if found[0][key] is not None else None
            for key in found[0]
        }
    return {
        "text": "".join(part["text"] for part in parts),
        "index": parts[0]["index"],
        "logprobs": logprobs,
        "finish_reason": parts[-1]["finish_reason"],
    }
