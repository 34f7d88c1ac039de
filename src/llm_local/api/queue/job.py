"""A request that was handed in: it runs by itself, whoever watches, and its events are kept."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from llm_local.api.errors import failure_of
from llm_local.api.native.replies import Run
from llm_local.api.queue.event_log import EventLog
from llm_local.api.streams import SseEvent
from llm_local.errors import LocalLLMError
from llm_local.runtime.line_facts import Place

__all__ = ["Job", "JobStatus", "Retry"]

JobStatus = Literal["loading", "queued", "running", "finished", "failed", "cancelled"]

# A model's step is shorter than this, so who cancels hears the end of it.
END_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Retry:
    """What tells that a request is one that was handed in before: the owner's key for it, and a digest of its body."""

    owner: str
    key: str
    digest: bytes


class Job:
    """One request. It begins at once and goes on until it ends, whether or not somebody reads its events."""

    def __init__(self, owner: str, model: str) -> None:
        """`model`: the name it asks for."""
        self.id = uuid.uuid4().hex
        self.owner = owner
        self.model = model
        self.created = time.time()
        self.status: JobStatus = "loading"
        self.log = EventLog()
        self.error: Exception | None = None
        self.tail: Mapping[str, Any] | None = None
        self.head: Mapping[str, Any] = {}
        self.task: asyncio.Task[None] | None = None
        self._texts: dict[str, list[str]] = {"content": [], "reasoning": []}
        self._calls: list[Any] = []
        self.retry: Retry | None = None
        self._run: Run | None = None
        self._begun = asyncio.Event()
        self._stop: LocalLLMError | None = None

    @property
    def ended(self) -> bool:
        """True when nothing more will happen."""
        return self.status in ("finished", "failed", "cancelled")

    def start(self, begin: Coroutine[Any, Any, Run], on_end: Callable[[Job], None]) -> None:
        """Begin it, and read it to its end, which `on_end` hears of."""
        self.task = asyncio.create_task(self._work(begin))
        self.task.add_done_callback(lambda _: on_end(self))

    async def begun(self, seconds: float) -> None:
        """Wait until it has been taken up or has ended, at most that long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._begun.wait(), seconds)

    async def cancel(self) -> None:
        """End it; harmless when it has ended. Returns when it has, or after `END_S` in the midst of a long step."""
        if self.task is None or self.ended:
            return
        if self._run is None:
            self.task.cancel()
        else:
            self._run.reply.cancel()
        await asyncio.wait({self.task}, timeout=END_S)

    def stop(self, error: LocalLLMError) -> None:
        """Have it fail with `error`. Harmless when it has ended."""
        if self.task is not None and not self.ended:
            self._stop = error
            self.task.cancel()

    def refuse(self, error: Exception) -> None:
        """Have it end with `error` before it has begun, for whoever waits for that too."""
        self.status, self.error = "failed", error
        self.log.close()
        self._begun.set()

    def to_object(self) -> dict[str, Any]:
        """What there is to know of it now. Where it does not wait in line, its place is null."""
        place = self._place if self.status == "queued" else None
        found: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "model": self.model,
            "created": int(self.created),
            "position": None if place is None else place.position,
            "waiting": None if place is None else place.total,
            "eta_s": None if place is None else _rounded(place.eta_s),
            "last_event_id": self.log.last,
            "stream": f"/stream/{self.id}",
        }
        if self.ended:
            found["text"] = "".join(self._texts["content"])
            found["reasoning"] = "".join(self._texts["reasoning"])
            found["tool_calls"] = self._calls
            found |= {
                name: value for name, value in {**self.head, **(self.tail or {})}.items() if name not in found
            }
        if self.error is not None:
            failure = failure_of(self.error, "")
            found["error"] = {"kind": failure.kind, "message": failure.message, "hint": failure.hint}
        return found

    @property
    def _place(self) -> Place | None:
        return None if self._run is None else self._run.reply.place

    async def _work(self, begin: Coroutine[Any, Any, Run]) -> None:
        try:
            self._run = await begin
            async for event in self._run:
                self._note(event)
            cancelled = (self.tail or {}).get("finish_reason") == "cancelled"
            self.status = "cancelled" if cancelled else "finished"
        except asyncio.CancelledError:
            if self._stop is None:
                self.status = "cancelled"
                self.log.append(SseEvent({"finish_reason": "cancelled"}, "finish"))
            else:
                self.status, self.error = "failed", self._stop
        except Exception as error:
            self.status, self.error = "failed", error
        finally:
            run, self._run = self._run, None
            if run is not None:
                await run.aclose()
            self.log.close()
            self._begun.set()

    def _note(self, event: SseEvent) -> None:
        data: Any = event.data
        if event.event == "begin":
            self.head = data = {**data, "id": self.id}
            self.status = "running" if self._place is None else "queued"
        elif event.event == "progress":
            self.status = "queued" if data["stage"] == "queued" else "running"
            place = self._place
            if self.status == "queued" and place is not None:
                data = {"position": data["done"], "waiting": data["total"], "eta_s": _rounded(place.eta_s)}
                event = SseEvent(data, "queued")
        elif event.event == "delta":
            self.status = "running"
            self._texts[data["channel"]].append(data["text"])
        elif event.event == "tool_call":
            self._calls.append(data)
        elif event.event == "finish":
            self.tail = data
        self.log.append(SseEvent(data, event.event))
        self._begun.set()


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
