"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.bodies import json_body, read_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response
from llm_local.api.openai import PREFIX
from llm_local.api.openai.answers import Head, Tally
from llm_local.api.openai.chat_answers import ChatChunks, chat_choice, usage_chunk
from llm_local.api.openai.choices import Choice, Chunks, begin_choices, events_of, read_all
from llm_local.api.openai.errors import in_openai_words
from llm_local.api.openai.headers import reply_headers, warnings_of
from llm_local.api.openai.schemas import ChatRequest
from llm_local.api.openai.translate import chat_work, num_choices, wants_usage
from llm_local.api.streams import DONE, sse
from llm_local.events import fold

__all__ = ["create_chat_completion", "router"]

router = APIRouter(prefix=PREFIX)

_EXAMPLE = {"model": "starter", "messages": [{"role": "user", "content": "Hello!"}]}


@router.post("/chat/completions", openapi_extra=json_body(ChatRequest, chat=_EXAMPLE))
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation, whole or in chunks.

    `curl http://127.0.0.1:8000/v1/chat/completions -d '{"model": "starter", "messages": [{"role": "user", "content":
    "Hello!"}]}'`
    """
    body = await read_body(request, ChatRequest)
    if not body.stream:
        return await until_gone(request, _answer(request, body))
    choices = await until_gone(request, _begin(request, body))
    return sse(request, Chunks(choices, _chunks(body, choices)), headers=reply_headers(body, choices))


async def _begin(request: Request, body: ChatRequest) -> list[Choice]:
    service = service_of(request)
    work = chat_work(body, caller_of(request), capped=service.config.is_explicit("max_new_tokens"))
    with in_openai_words(body.model):
        return await begin_choices(
            service, [work], num_choices(body), one_call=body.parallel_tool_calls is False
        )


async def _answer(request: Request, body: ChatRequest) -> Response:
    choices = await _begin(request, body)
    head = Head.new("chatcmpl-", "chat.completion", body.model, choices[0].reply)
    tally, shown = Tally(), []
    for choice, events in zip(choices, await read_all(choices), strict=True):
        for event in events:
            tally.feed(event)
        token_bytes = choice.reply.token_bytes if body.logprobs else None
        shown.append(chat_choice(choice.index, fold(events), token_bytes))
    return json_response(
        head.body(choices=shown, usage=tally.usage, **warnings_of(choices)),
        headers=reply_headers(body, choices),
    )


async def _chunks(body: ChatRequest, choices: Sequence[Choice]) -> AsyncGenerator[Any]:
    head = Head.new("chatcmpl-", "chat.completion.chunk", body.model, choices[0].reply)
    with_usage = wants_usage(body)
    writers = [
        ChatChunks(
            head, choice.index, choice.reply.token_bytes if body.logprobs else None, with_usage=with_usage
        )
        for choice in choices
    ]
    tally = Tally()
    told = warnings_of(choices)
    for writer in writers:
        yield writer.begin() | told
        told = {}
    async with aclosing(events_of(choices)) as events:
        async for choice, event in events:
            tally.feed(event)
            for chunk in writers[choice.index].feed(event):
                yield chunk
    if with_usage:
        yield usage_chunk(head, tally.usage)
    yield DONE
