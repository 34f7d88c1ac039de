"""All requests that were handed in: found by their owners, and kept for a while when they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from fastapi import FastAPI, Request

from llm_local.api.lifecycle import Lifecycle, shutting_down
from llm_local.api.native.replies import Run
from llm_local.api.queue.job import Job, Retry
from llm_local.errors import InvalidRequest, LocalLLMError

__all__ = ["SOON_S", "Jobs", "RequestNotFound", "finish_jobs", "jobs_of"]

KEPT_S: Final = 600.0
# Of the requests that have ended, those of one owner and those of all; the ones that ended first go first.
MAX_KEPT: Final = 200
MAX_KEPT_BYTES: Final = 16 << 20
MAX_KEPT_BY_ALL: Final = 2000
MAX_KEPT_BYTES_BY_ALL: Final = 256 << 20
# So long a request that is handed in may fail with its own status; after that it is told by its events.
SOON_S: Final = 0.25


class RequestNotFound(LocalLLMError):
    """The caller has handed in no such request, or it ended too long ago. One message for all of it."""

    def __init__(self) -> None:
        super().__init__(
            "There is no request of that id.",
            f"One that has ended is kept for {KEPT_S / 60:.0f} minutes.",
            kind="request_not_found",
        )


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
        self._free_key(job)
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
        if job.status == "failed":
            self._free_key(job)  # who tries again wants another try, not the old failure
        self._ended[job.id] = asyncio.get_running_loop().call_later(self._kept_s, self.forget, job)
        self._trim(
            [one for one in self._ended if self._jobs[one].owner == job.owner], MAX_KEPT, MAX_KEPT_BYTES
        )
        self._trim(list(self._ended), MAX_KEPT_BY_ALL, MAX_KEPT_BYTES_BY_ALL)

    def _free_key(self, job: Job) -> None:
        if job.retry is not None:
            del self._retries[job.retry.owner, job.retry.key]
            job.retry = None

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


def jobs_of(request: Request) -> Jobs:
    """The jobs of the application that a request came to, which begin with the first request for one."""
    state = request.app.state
    found: Jobs | None = getattr(state, "jobs", None)
    if found is None:
        found = state.jobs = Jobs(state.lifecycle)
    return found
