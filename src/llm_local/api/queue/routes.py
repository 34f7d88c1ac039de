"""The queue: `/queue/add`, `/queue/{id}`, `/stream/{id}`, cancel, statistics. Errors are in the native envelope."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Coroutine
from typing import Any, Final, get_args

from fastapi import APIRouter, Request
from fastapi.responses import Response

from llm_local.api.bodies import read_json, validate
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.errors import json_response
from llm_local.api.native.conversation import Keeper, find_keeper
from llm_local.api.native.replies import Run
from llm_local.api.native.schemas import ChatBody, GenerateBody
from llm_local.api.native.translate import chat_work, refuse_unknown, text_work
from llm_local.api.queue.job import Job, JobStatus
from llm_local.api.queue.jobs import SOON_S, jobs_of
from llm_local.api.queue.translate import add_body, events_after, last_event_id, retry_of
from llm_local.api.streams import sse
from llm_local.service import Service, Work

__all__ = ["router"]

router: Final = APIRouter(tags=["queue"])


@router.post("/queue/add", status_code=202, openapi_extra=add_body())
async def add(request: Request) -> Response:
    """Hand a request in: a conversation, as for `/chat`, or a text to continue, as for `/generate`.

    The answer comes at once, with the id of the request and its place in line. It runs by itself from now on: watch it
    at `/stream/{id}`, ask for it at `/queue/{id}`. Handed in again with the same `Idempotency-Key` header, as after an
    answer that was lost, it is the same request: its id comes back, and nothing runs twice.

    `curl http://127.0.0.1:8000/queue/add -d '{"messages": [{"role": "user", "content": "Hello!"}]}'`
    """
    began = time.monotonic()
    given = await read_json(request)
    body: ChatBody | GenerateBody = (
        validate(ChatBody, given) if "messages" in given else validate(GenerateBody, given)
    )
    refuse_unknown(body)
    caller, service, jobs = caller_of(request), service_of(request), jobs_of(request)
    job = Job(caller.owner, body.model or service.config.model_id)
    retry = retry_of(caller.owner, request.headers.getlist("idempotency-key"), given)
    known = job if retry is None else jobs.expect(retry, job)
    if known is not job:
        await known.begun(SOON_S)
        return _handed_in(known)
    try:
        begin = await _beginning(request, service, body, began)
    except Exception as error:
        job.refuse(error)
        jobs.forget(job)
        raise
    await jobs.add(job, begin)
    return _handed_in(job)


@router.get("/queue/stats")
async def stats(request: Request) -> Response:
    """The lines in front of the models, and how many requests of the caller's are known.

    `curl http://127.0.0.1:8000/queue/stats`
    """
    lines = service_of(request).stats().lines
    mine = jobs_of(request).of(caller_of(request).owner)
    return json_response(
        {
            "lines": {name: dataclasses.asdict(line) for name, line in lines.items()},
            "yours": {status: sum(job.status == status for job in mine) for status in get_args(JobStatus)},
        }
    )


@router.get("/queue")
async def mine(request: Request) -> Response:
    """The caller's requests, the newest first: those that wait and run, and for ten minutes those that have ended.

    `curl http://127.0.0.1:8000/queue`
    """
    jobs = jobs_of(request).of(caller_of(request).owner)
    return json_response({"requests": [job.to_object() for job in jobs]})


@router.get("/queue/{request_id}")
async def show(request: Request, request_id: str) -> Response:
    """One request: its status, its place in line, when its turn should come; and its answer when it has ended.

    `curl http://127.0.0.1:8000/queue/REQUEST_ID`
    """
    return json_response(_job(request, request_id).to_object())


@router.delete("/queue/{request_id}")
async def drop(request: Request, request_id: str) -> Response:
    """Cancel a request, and forget it and what it said. A second time there is none: 404.

    `curl -X DELETE http://127.0.0.1:8000/queue/REQUEST_ID`
    """
    job = _job(request, request_id)
    await job.cancel()
    jobs_of(request).forget(job)
    return json_response({"id": job.id, "status": job.status, "deleted": True})


@router.post("/queue/{request_id}/cancel")
async def cancel(request: Request, request_id: str) -> Response:
    """Cancel a request. What there is of its answer stays for a while; a second time changes nothing.

    `curl -X POST http://127.0.0.1:8000/queue/REQUEST_ID/cancel`
    """
    job = _job(request, request_id)
    await job.cancel()
    return json_response(job.to_object())


@router.get("/stream/{request_id}")
async def stream(request: Request, request_id: str) -> Response:
    """The events of a request, from the first on: queued, begin, progress, delta, tool_call, finish; or error.

    Each has a number as its id. Who was cut off goes on behind the last one it has seen, which it names in the header
    `Last-Event-ID` (a browser's EventSource does by itself) or in `?last_event_id=`. Leaving does not cancel.

    `curl -N http://127.0.0.1:8000/stream/REQUEST_ID`
    """
    job = _job(request, request_id)
    after = last_event_id(request.headers.get("last-event-id") or request.query_params.get("last_event_id"))
    if job.ended and job.error is None and after >= job.log.last:
        return Response(status_code=204)  # what tells an EventSource not to come again
    return sse(request, events_after(job, after))


def _job(request: Request, request_id: str) -> Job:
    return jobs_of(request).find(caller_of(request).owner, request_id)


def _handed_in(job: Job) -> Response:
    if job.error is not None:
        raise job.error
    return json_response(job.to_object(), 202, {"location": f"/queue/{job.id}"})


async def _beginning(
    request: Request, service: Service, body: ChatBody | GenerateBody, began: float
) -> Coroutine[Any, Any, Run]:
    """What begins the reply. It has not begun yet."""
    caller = caller_of(request)
    if isinstance(body, GenerateBody):
        return _begin_text(service, text_work(body, caller), began)
    keeper = await find_keeper(request, body)
    work = chat_work(body, caller, () if keeper is None else keeper.before)
    return _begin_chat(service, work, began, body, keeper)


async def _begin_text(service: Service, work: Work, began: float) -> Run:
    return Run(await service.begin(work), began)


async def _begin_chat(
    service: Service, work: Work, began: float, body: ChatBody, keeper: Keeper | None
) -> Run:
    reply = await service.begin(work)
    if keeper is not None:
        try:
            await keeper.begin(body, reply)
        except BaseException:
            await reply.aclose()
            raise
    return Run(reply, began, keeper)
