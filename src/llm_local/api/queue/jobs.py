"""Requests that were handed in: each runs by itself, whoever watches, and is kept for a while when it has ended."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import FastAPI, Request

from llm_local.api.errors import failure_of
from llm_local.api.lifecycle import Lifecycle, shutting_down
from llm_local.api.native.replies import Run
from llm_local.api.queue.event_log import EventLog
from llm_local.api.streams import SseEvent
from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.runtime.line_facts import Place

__all__ = ["Job", "JobStatus", "Jobs", "RequestNotFound", "Retry", "finish_jobs", "jobs_of"]

JobStatus = Literal["loading", "queued", "running", "finished", "failed", "cancelled"]

KEPT_S: Final = 600.0
# Of the requests that have ended, those of one owner and those of all; the ones that ended first go first.
MAX_KEPT: Final = 200
MAX_KEPT_BYTES: Final = 16 << 20
MAX_KEPT_BY_ALL: Final = 2000
MAX_KEPT_BYTES_BY_ALL: Final = 256 << 20
# So long a request that is handed in may fail with its own status; after that it is told by its events.
SOON_S: Final = 0.25
# A model's step is shorter than this, so who cancels hears the end of it.
END_S: Final = 2.0


class RequestNotFound(LocalLLMError):
    """The caller has handed in no such request, or it ended too long ago. One message for all of it."""

    def __init__(self) -> None:
        super().__init__(
            "There is no request of that id.",
            f"One that has ended is kept for {KEPT_S / 60:.0f} minutes.",
            kind="request_not_found",
        )


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


@dataclass(frozen=True, slots=True)
class Retry:
    """What tells that a request is one that was handed in before: the owner's key for it, and a digest of its body."""

    owner: str
    key: str
    digest: bytes


class Jobs:
    """All requests that were handed in and are not forgotten yet. Every look needs the owner."""

    def __init__(self, lifecycle: Lifecycle, *, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._jobs: dict[str, Job] = {}
        self._ended: dict[str, asyncio.TimerHandle] = {}  # in the order in which they ended
        self._retries: dict[tuple[str, str], Job] = {}
        self._watching = asyncio.create_task(self._end_with(lifecycle))

    def expect(self, retry: Retry, job: Job) -> Job:
        """The job that was handed in under the same key before; else `job`, which the key stands for from now on.

        Raises:
            InvalidRequest: the key was used for another body.
        """
        known = self._retries.setdefault((retry.owner, retry.key), job)
        if known is job:
            job.retry = retry
        elif known.retry is None or known.retry.digest != retry.digest:
            raise InvalidRequest(
                "This Idempotency-Key was used for another request.",
                "Make a new key.",
                param="Idempotency-Key",
            )
        return known

    async def add(self, job: Job, begin: Coroutine[Any, Any, Run]) -> None:
        """Begin a job, and know it by its id.

        Raises:
            LocalLLMError: it was refused, which most refusals tell at once.
        """
        self._jobs[job.id] = job
        job.start(begin, self._keep)
        await job.begun(SOON_S)
        if job.error is not None:
            self.forget(job)
            raise job.error

    def find(self, owner: str, job_id: str) -> Job:
        """The job of that id.

        Raises:
            RequestNotFound: the owner has none; whether somebody else has cannot be told.
        """
        job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise RequestNotFound
        return job

    def of(self, owner: str) -> list[Job]:
        """All of an owner's, the newest first."""
        return [job for job in reversed(self._jobs.values()) if job.owner == owner]

    def forget(self, job: Job) -> None:
        """Know it no more. Harmless when repeated."""
        self._jobs.pop(job.id, None)
        if job.retry is not None:
            self._retries.pop((job.retry.owner, job.retry.key), None)
            job.retry = None
        timer = self._ended.pop(job.id, None)
        if timer is not None:
            timer.cancel()

    async def finish(self, seconds: float) -> None:
        """Let those that run come to their end, at most that long; the others are told that the server ends."""
        self._watching.cancel()
        running = [job for job in self._jobs.values() if not job.ended]
        tasks = [job.task for job in running if job.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
            for job in running:
                job.stop(shutting_down())
            await asyncio.wait(tasks)

    def _keep(self, job: Job) -> None:
        """It has ended: keep it for a while, and as long as there is room."""
        if job.id not in self._jobs:
            return
        self._ended[job.id] = asyncio.get_running_loop().call_later(self._kept_s, self.forget, job)
        self._trim(
            [one for one in self._ended if self._jobs[one].owner == job.owner], MAX_KEPT, MAX_KEPT_BYTES
        )
        self._trim(list(self._ended), MAX_KEPT_BY_ALL, MAX_KEPT_BYTES_BY_ALL)

    def _trim(self, ended: list[str], most: int, most_bytes: int) -> None:
        """Forget the first of those until the others keep the bounds."""
        num_bytes = sum(self._jobs[one].log.num_bytes for one in ended)
        for position, one in enumerate(ended):
            if len(ended) - position <= most and num_bytes <= most_bytes:
                break
            num_bytes -= self._jobs[one].log.num_bytes
            self.forget(self._jobs[one])

    async def _end_with(self, lifecycle: Lifecycle) -> None:
        """The server ends: so do those that still run."""
        await lifecycle.over.wait()
        for job in self._jobs.values():
            job.stop(shutting_down())


async def finish_jobs(app: FastAPI) -> None:
    """Before the service of an application ends: let its jobs come to their end within the grace that is left."""
    jobs: Jobs | None = getattr(app.state, "jobs", None)
    if jobs is not None:
        await jobs.finish(app.state.lifecycle.left_s)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def jobs_of(request: Request) -> Jobs:
    """The jobs of the application that a request came to, which begin with the first request for one."""
    state = request.app.state
    found: Jobs | None = getattr(state, "jobs", None)
    if found is None:
        found = state.jobs = Jobs(state.lifecycle)
    return found
