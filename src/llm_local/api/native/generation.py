"""Replies in the native dialect: `/generate`, `/chat`, their streams, and batches."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from llm_local.api.bodies import json_body, read_body, validate
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import failure_of, json_response
from llm_local.api.native.conversation import find_keeper
from llm_local.api.native.replies import Run, error_event
from llm_local.api.native.schemas import BatchBody, ChatBody, GenerateBody
from llm_local.api.native.translate import chat_work, refuse_unknown, text_work
from llm_local.api.streams import EventStream, sse
from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.service import Work

__all__ = ["ChatQuery", "GenerateQuery", "router"]

router: Final = APIRouter(tags=["native"])

MAX_QUERY_BYTES: Final = 8192
_AT_ONCE: Final = 16  # of a batch's replies; the others are begun as these end
_PROMPT: Final = {"prompt": "Once upon a time", "max_new_tokens": 40}
_CHAT: Final = {"messages": [{"role": "user", "content": "Hello!"}], "max_new_tokens": 40}


@router.post("/generate", openapi_extra=json_body(GenerateBody, continue_a_text=_PROMPT))
async def generate(request: Request) -> Response:
    """Continue a text as it is, without chat template.

    `curl http://127.0.0.1:8000/generate -d '{"prompt": "Once upon a time", "max_new_tokens": 40}'`
    """
    began = time.monotonic()
    body = await read_body(request, GenerateBody)
    refuse_unknown(body)
    return await until_gone(request, _answer(request, text_work(body, caller_of(request)), began))


@router.post(
    "/generate/stream",
    response_class=EventStream,
    openapi_extra=json_body(GenerateBody, continue_a_text=_PROMPT),
)
async def generate_stream(request: Request) -> Response:
    """Continue a text, as server-sent events: begin, progress, delta, finish; or error.

    `curl -N http://127.0.0.1:8000/generate/stream -d '{"prompt": "Once upon a time"}'`
    """
    began = time.monotonic()
    body = await read_body(request, GenerateBody)
    refuse_unknown(body)
    return await _stream(request, text_work(body, caller_of(request)), began)


@router.post(
    "/generate/batch",
    openapi_extra=json_body(BatchBody, two={"prompts": ["One", "Two"], "max_new_tokens": 8}),
)
async def generate_batch(request: Request) -> Response:
    """Continue several texts. Each has its answer, or its error, at its place in `results`.

    `curl http://127.0.0.1:8000/generate/batch -d '{"prompts": ["One", "Two"], "max_new_tokens": 8}'`
    """
    began = time.monotonic()
    body = await read_body(request, BatchBody)
    refuse_unknown(body)
    works = [text_work(body, caller_of(request), prompt) for prompt in body.prompts]
    return await until_gone(request, _batch(request, works, began))


@router.post("/chat", openapi_extra=json_body(ChatBody, hello=_CHAT))
async def chat(request: Request) -> Response:
    """Answer a conversation.

    `curl http://127.0.0.1:8000/chat -d '{"messages": [{"role": "user", "content": "Hello!"}]}'`
    """
    began = time.monotonic()
    body = await _chat_body(request)
    return await until_gone(request, _chat_answer(request, body, began))


@router.post("/chat/stream", response_class=EventStream, openapi_extra=json_body(ChatBody, hello=_CHAT))
async def chat_stream(request: Request) -> Response:
    """Answer a conversation, as server-sent events: begin, progress, delta, tool_call, finish; or error.

    `curl -N http://127.0.0.1:8000/chat/stream -d '{"messages": [{"role": "user", "content": "Hello!"}]}'`
    """
    began = time.monotonic()
    body = await _chat_body(request)
    run = await until_gone(request, _begin_chat(request, body, began))
    return sse(request, run, on_error=error_event, headers=run.headers)


class GenerateQuery(BaseModel):
    """What fits into an address."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    prompt: str
    model: str | None = Field(default=None, max_length=512)
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] | None = None


class ChatQuery(BaseModel):
    """What fits into an address."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    message: str
    system: str | None = None
    conversation_id: str | None = None
    model: str | None = Field(default=None, max_length=512)
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] | None = None


@router.get("/generate/stream", response_class=EventStream)
async def generate_stream_from_address(
    request: Request, query: Annotated[GenerateQuery, Query()]
) -> Response:
    """The same for a browser's EventSource, which can only GET. Prefer POST.

    The prompt is in the address here: browsers keep it in their history, and proxies in their logs (this server does
    not). The query may have 8192 bytes.

    `curl -N 'http://127.0.0.1:8000/generate/stream?prompt=Once%20upon&max_new_tokens=20'`
    """
    began = time.monotonic()
    body = validate(GenerateBody, _given(request, query))
    return await _stream(request, text_work(body, caller_of(request)), began)


@router.get("/chat/stream", response_class=EventStream)
async def chat_stream_from_address(request: Request, query: Annotated[ChatQuery, Query()]) -> Response:
    """The same for a browser's EventSource, which can only GET. Prefer POST.

    The message is in the address here: browsers keep it in their history, and proxies in their logs (this server does
    not). The query may have 8192 bytes.

    `curl -N 'http://127.0.0.1:8000/chat/stream?message=Hello'`
    """
    began = time.monotonic()
    given = _given(request, query)
    turns = [("system", given.pop("system", None)), ("user", given.pop("message"))]
    messages = [{"role": role, "content": text} for role, text in turns if text is not None]
    body = validate(ChatBody, {**given, "messages": messages})
    run = await until_gone(request, _begin_chat(request, body, began))
    return sse(request, run, on_error=error_event, headers=run.headers)


def _given(request: Request, query: BaseModel) -> dict[str, Any]:
    """What an address gives.

    Raises:
        InvalidRequest: it is too long.
    """
    if len(request.scope["query_string"]) > MAX_QUERY_BYTES:
        raise InvalidRequest(
            f"The query has over {MAX_QUERY_BYTES} bytes.",
            "Send it with POST, in the body.",
            kind="query_too_long",
        )
    return query.model_dump(exclude_none=True)


async def _chat_body(request: Request) -> ChatBody:
    body = await read_body(request, ChatBody)
    refuse_unknown(body)
    return body


async def _begin_chat(request: Request, body: ChatBody, began: float) -> Run:
    keeper = await find_keeper(request, body)
    before = () if keeper is None else keeper.before
    reply = await service_of(request).begin(chat_work(body, caller_of(request), before))
    if keeper is not None:
        try:
            await keeper.begin(body, reply)
        except BaseException:
            await reply.aclose()
            raise
    return Run(reply, began, keeper)


async def _chat_answer(request: Request, body: ChatBody, began: float) -> Response:
    run = await _begin_chat(request, body, began)
    answer = await run.whole()
    return json_response(answer, headers=run.headers)


async def _answer(request: Request, work: Work, began: float) -> Response:
    run = Run(await service_of(request).begin(work), began)
    answer = await run.whole()
    return json_response(answer, headers=run.headers)


async def _stream(request: Request, work: Work, began: float) -> Response:
    reply = await until_gone(request, service_of(request).begin(work))
    run = Run(reply, began)
    return sse(request, run, on_error=error_event, headers=run.headers)


async def _batch(request: Request, works: list[Work], began: float) -> Response:
    free = asyncio.Semaphore(_AT_ONCE)
    failures: list[LocalLLMError] = []

    async def one(work: Work) -> dict[str, Any]:
        async with free:
            try:
                return await Run(await service_of(request).begin(work), began).whole()
            except LocalLLMError as error:
                failures.append(error)
                failure = failure_of(error, request.state.request_id)
                return {"error": {"kind": failure.kind, "message": failure.text, "param": failure.param}}

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(work)) for work in works]
    if len(failures) == len(works):
        raise failures[0]
    return json_response({"results": [task.result() for task in tasks]})
