"""Between the queue's HTTP and its jobs. Pure, but for waiting for what comes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from llm_local.api.bodies import json_body
from llm_local.api.native.schemas import ChatBody, GenerateBody
from llm_local.api.queue.job import Job, Retry
from llm_local.api.streams import SseEvent
from llm_local.errors import InvalidRequest

__all__ = ["add_body", "events_after", "last_event_id", "retry_of"]

_KEY: Final = re.compile(r"[!-~]{1,255}", re.ASCII)


def add_body() -> dict[str, Any]:
    """The `openapi_extra` of `/queue/add`: a body of `/chat` or of `/generate`."""
    chat = json_body(
        ChatBody, chat={"messages": [{"role": "user", "content": "Hello!"}], "max_new_tokens": 40}
    )
    text = json_body(GenerateBody, text={"prompt": "Once upon a time", "max_new_tokens": 40})
    both = [one["requestBody"]["content"]["application/json"] for one in (chat, text)]
    schemas = [one["schema"] for one in both]
    definitions = {name: found for one in schemas for name, found in one.pop("$defs", {}).items()}
    content = {
        "schema": {"anyOf": schemas, "$defs": definitions},
        "examples": {name: value for one in both for name, value in one["examples"].items()},
    }
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def last_event_id(text: str | None) -> int:
    """The number of the last event that a reader has seen; 0 when it has seen none.

    Raises:
        InvalidRequest: it is no number of an event.
    """
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise InvalidRequest(
            "Last-Event-ID is no id of an event.", "Leave it out to begin.", param="last_event_id"
        )
    return int(text)


def retry_of(owner: str, keys: Sequence[str], body: Mapping[str, Any]) -> Retry | None:
    """What an `Idempotency-Key` header says; None where there is none.

    Raises:
        InvalidRequest: there are several, or it is empty, too long, or not of printable ASCII.
    """
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise InvalidRequest(
            "Idempotency-Key must be one text of 1 to 255 printable ASCII characters.",
            param="Idempotency-Key",
        )
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return Retry(owner, keys[0], hashlib.sha256(text.encode()).digest())


async def events_after(job: Job, number: int) -> AsyncGenerator[SseEvent]:
    """A job's events after that number, to the last one.

    Raises:
        LocalLLMError: what the job failed with, where all of its events would end.
    """
    async with aclosing(job.log.after(number)) as events:
        async for event in events:
            yield event
    if job.error is not None:
        raise job.error
