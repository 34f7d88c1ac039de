"""What all of OpenAI's answers have in common: ids, token counts, reasons to end. Pure."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from llm_local.api.naming import told_model
from llm_local.events import Delta, Event, Finish
from llm_local.service import ServedReply
from llm_local.specs import ModelInfo

__all__ = ["Head", "Tally", "arguments_text", "fingerprint", "new_id"]


def new_id(prefix: str) -> str:
    """An id that nobody guesses, and nothing else has."""
    return prefix + secrets.token_hex(12)


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of one answer says alike. `created` is in seconds since 1970."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, prefix: str, object: str, asked: str, reply: ServedReply) -> Self:
        """A head with a fresh id. `asked` is the model's name in the request."""
        model = told_model(asked, reply.model)
        return cls(new_id(prefix), object, int(time.time()), model, fingerprint(reply.info))

    def body(self, **more: Any) -> dict[str, Any]:
        """As JSON, with `more` fields."""
        # Not `asdict`, which copies every value: this is done for every token of a stream.
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
            **more,
        }


@dataclass(slots=True)
class Tally:
    """Counts the tokens of one request while its choices come.

    The choices of one prompt count it once. Of its tokens as many were cached as for the choice that found the least:
    what the others found is this very request's.
    """

    completion_tokens: int = 0
    reasoning_tokens: int = 0
    _prompts: dict[int, tuple[int, int]] = field(default_factory=dict)

    def feed(self, event: Event, prompt: int = 0) -> None:
        """Take what an event of a choice says; `prompt` is the number of its prompt."""
        if isinstance(event, Delta) and event.channel == "reasoning":
            self.reasoning_tokens += len(event.token_ids)
        elif isinstance(event, Finish):
            usage = event.usage
            self.completion_tokens += usage.completion_tokens
            cached = min(usage.cached_tokens, self._prompts.get(prompt, (0, usage.cached_tokens))[1])
            self._prompts[prompt] = (usage.prompt_tokens, cached)

    @property
    def prompt_tokens(self) -> int:
        """All tokens of the prompts, cached ones included."""
        return sum(tokens for tokens, _ in self._prompts.values())

    @property
    def cached_tokens(self) -> int:
        """Those of them that did not have to be read."""
        return sum(cached for _, cached in self._prompts.values())

    @property
    def usage(self) -> dict[str, Any]:
        """The `usage` of chat and completions."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """The arguments of a call as JSON text."""
    return json.dumps(arguments, ensure_ascii=False)


def fingerprint(info: ModelInfo) -> str:
    """Names the weights and how they compute: what must be equal for a seed to give the same answer."""
    facts = f"{info.path} {info.dtype} {info.device} {info.quantization}"
    return "fp_" + hashlib.sha256(facts.encode()).hexdigest()[:12]
