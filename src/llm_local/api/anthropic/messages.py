"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.anthropic import PREFIX
from llm_local.api.anthropic.answers import PING, MessageEvents, new_message
from llm_local.api.anthropic.errors import REQUEST_ID, AnthropicEnvelope, in_anthropic_words
from llm_local.api.anthropic.schemas import CountTokensRequest, MessagesRequest
from llm_local.api.anthropic.thinking import with_thinking
from llm_local.api.anthropic.translate import count_work, ignored_fields, message_work, thinking_of
from llm_local.api.bodies import json_body, read_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import Failure, json_response
from llm_local.api.naming import told_model
from llm_local.api.openai.choices import Choice, Chunks, events_of, read_all
from llm_local.api.streams import SseEvent, sse
from llm_local.api.told_headers import SEED_HEADER, ignored_header
from llm_local.errors import ContextLengthExceeded
from llm_local.service import Work

__all__ = ["count_tokens", "create_message", "router"]

router = APIRouter(prefix=PREFIX)

_MESSAGES: Final = [{"role": "user", "content": "Hello!"}]
_EXAMPLE: Final = {"model": "starter", "max_tokens": 64, "messages": _MESSAGES}
_NO_ROOM: Final[dict[int | str, dict[str, Any]]] = {
    529: {
        "description": "No room, not ready, or shutting down, in Anthropic's way; Retry-After says when to come back."
    }
}


@router.post("", openapi_extra=json_body(MessagesRequest, hello=_EXAMPLE), responses=_NO_ROOM)
async def create_message(request: Request) -> Response:
    """Answer a conversation, whole or in events.

    `curl http://127.0.0.1:8000/v1/messages -d '{"model": "starter", "max_tokens": 64, "messages": [{"role": "user",
    "content": "Hello!"}]}'`
    """
    body = await read_body(request, MessagesRequest)
    if not body.stream:
        return await until_gone(request, _answer(request, body))
    choice, headers = await until_gone(request, _begin(request, body))
    return sse(
        request,
        Chunks([choice], _chunks(body, choice)),
        on_error=_error_event,
        headers=headers,
        ping=_shown(PING),
    )


@router.post(
    "/count_tokens",
    openapi_extra=json_body(CountTokensRequest, hello={"model": "starter", "messages": _MESSAGES}),
    responses=_NO_ROOM,
)
async def count_tokens(request: Request) -> Response:
    """How many tokens the model would read: exactly the `input_tokens` of the answer.

    `curl http://127.0.0.1:8000/v1/messages/count_tokens -d '{"model": "starter", "messages": [{"role": "user",
    "content": "Hello!"}]}'`
    """
    body = await read_body(request, CountTokensRequest)
    return await until_gone(request, _count(request, body))


async def _begin(request: Request, body: MessagesRequest) -> tuple[Choice, dict[str, str]]:
    service = service_of(request)
    work = message_work(body, caller_of(request))
    with in_anthropic_words(body.model):
        reply, lost = await with_thinking(service, work, thinking_of(body), service.begin)
    choice = body.tool_choice
    one_call = choice is not None and bool(choice.disable_parallel_tool_use)
    headers = _headers(request, (*lost, *ignored_fields(body)))
    if reply.options.seed is not None:
        headers[SEED_HEADER] = str(reply.options.seed)
    return Choice(0, 0, reply, one_call), headers


async def _answer(request: Request, body: MessagesRequest) -> Response:
    choice, headers = await _begin(request, body)
    events = _events(body, choice)
    [found] = await read_all([choice])
    for event in found:
        events.feed(event)
    return json_response(events.message, headers=headers)


async def _chunks(body: MessagesRequest, choice: Choice) -> AsyncGenerator[SseEvent]:
    events = _events(body, choice)
    for one in events.begin():
        yield _shown(one)
    async with aclosing(events_of([choice])) as found:
        async for _, event in found:
            for one in events.feed(event):
                yield _shown(one)


async def _count(request: Request, body: CountTokensRequest) -> Response:
    service = service_of(request)

    async def count(work: Work) -> int:
        try:
            return len((await service.render(work)).prompt_ids)
        except ContextLengthExceeded as error:
            return error.prompt_tokens  # who counts wants to know just that

    work = count_work(body, caller_of(request))
    with in_anthropic_words(body.model):
        num_tokens, lost = await with_thinking(service, work, thinking_of(body), count)
    return json_response(
        {"input_tokens": num_tokens}, headers=_headers(request, (*lost, *ignored_fields(body)))
    )


def _events(body: MessagesRequest, choice: Choice) -> MessageEvents:
    reply = choice.reply
    return MessageEvents(
        new_message(told_model(body.model, reply.model), reply.prompt_tokens, reply.notices),
        body.stop_sequences or (),
        hides_thinking=body.thinking is not None and body.thinking.display == "omitted",
    )


def _headers(request: Request, ignored: Sequence[str]) -> dict[str, str]:
    return {REQUEST_ID: request.state.request_id, **ignored_header(ignored)}


def _error_event(failure: Failure) -> SseEvent:
    return _shown(AnthropicEnvelope().body(failure))


def _shown(event: dict[str, Any]) -> SseEvent:
    return SseEvent(event, event=event["type"])
