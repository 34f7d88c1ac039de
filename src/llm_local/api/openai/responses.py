"""`POST /v1/responses`. Answers are not kept: a client sends the whole conversation."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.bodies import json_body, read_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import Failure, json_response
from llm_local.api.naming import told_model
from llm_local.api.openai import PREFIX
from llm_local.api.openai.choices import Choice, Chunks, begin_choices, events_of, read_all
from llm_local.api.openai.errors import in_openai_words
from llm_local.api.openai.headers import reply_headers, warnings_of
from llm_local.api.openai.response_answers import ResponseEvents, response_body
from llm_local.api.openai.response_input import response_work, wants_logprobs
from llm_local.api.openai.response_schemas import ResponsesRequest
from llm_local.api.streams import SseEvent, sse

__all__ = ["create_response", "router"]

router = APIRouter(prefix=PREFIX)

_EXAMPLE = {"model": "starter", "input": "Hello!"}


@router.post("/responses", openapi_extra=json_body(ResponsesRequest, text=_EXAMPLE))
async def create_response(request: Request) -> Response:
    """Answer a conversation, whole or in events.

    `curl http://127.0.0.1:8000/v1/responses -d '{"model": "starter", "input": "Hello!"}'`
    """
    body = await read_body(request, ResponsesRequest)
    if not body.stream:
        return await until_gone(request, _answer(request, body))
    choice = await until_gone(request, _begin(request, body))
    events = _events_of(body, choice)

    def on_error(failure: Failure) -> SseEvent:
        return _shown(events.fail("server_error", failure.text))

    return sse(
        request,
        Chunks([choice], _chunks(choice, events)),
        on_error=on_error,
        headers=_headers(body, choice),
    )


async def _begin(request: Request, body: ResponsesRequest) -> Choice:
    service = service_of(request)
    work = response_work(body, caller_of(request), capped=service.config.is_explicit("max_new_tokens"))
    with in_openai_words(body.model, "input"):
        [choice] = await begin_choices(service, [work], one_call=body.parallel_tool_calls is False)
    return choice


async def _answer(request: Request, body: ResponsesRequest) -> Response:
    choice = await _begin(request, body)
    events = _events_of(body, choice)
    [found] = await read_all([choice])
    for event in found:
        events.feed(event)
    return json_response(events.response, headers=_headers(body, choice))


async def _chunks(choice: Choice, events: ResponseEvents) -> AsyncGenerator[Any]:
    for one in events.begin():
        yield _shown(one)
    async with aclosing(events_of([choice])) as found:
        async for _, event in found:
            for one in events.feed(event):
                yield _shown(one)


def _events_of(body: ResponsesRequest, choice: Choice) -> ResponseEvents:
    token_bytes = choice.reply.token_bytes if wants_logprobs(body) else None
    model = told_model(body.model, choice.reply.model)
    response = {**response_body(body, choice.reply.options), "model": model, **warnings_of([choice])}
    return ResponseEvents(response, token_bytes)


def _shown(event: dict[str, Any]) -> SseEvent:
    return SseEvent(event, event=event["type"])


def _headers(body: ResponsesRequest, choice: Choice) -> dict[str, str]:
    return reply_headers(body, [choice], *(("store",) if body.store else ()))
