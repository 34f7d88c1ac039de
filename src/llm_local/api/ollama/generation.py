"""`POST /api/generate` and `POST /api/chat`."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.bodies import ignored_names, json_body
from llm_local.api.dependencies import Forbidden, caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response
from llm_local.api.naming import told_model
from llm_local.api.ollama import PREFIX
from llm_local.api.ollama.answers import AnswerWords
from llm_local.api.ollama.durations import keep_alive_s
from llm_local.api.ollama.errors import in_ollama_words, read_request
from llm_local.api.ollama.names import card_of, resolved_name
from llm_local.api.ollama.replies import Run
from llm_local.api.ollama.schemas import OllamaChat, OllamaGenerate
from llm_local.api.ollama.translate import (
    Asked,
    chat_work,
    generate_work,
    ignored_fields,
    only_loads,
    warnings_of,
)
from llm_local.api.streams import NdjsonStream, ndjson
from llm_local.api.told_headers import ignored_header
from llm_local.service import Service, Work

__all__ = ["BOTH_FORMS", "JSON", "router"]

router = APIRouter(prefix=PREFIX)

JSON: Final = "application/json; charset=utf-8"
BOTH_FORMS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/json": {"schema": {"type": "object"}}}}
}
"""`responses` of a route that answers in lines, or with one object where `stream` is false."""

_READ_TO_LOAD: Final = ("model", "keep_alive", "stream")
_GENERATE: Final = {"model": "starter", "prompt": "Why is the sky blue?", "stream": False}
_CHAT: Final = {
    "model": "starter",
    "messages": [{"role": "user", "content": "Hello!"}],
    "options": {"temperature": 0, "num_predict": 40},
}


@router.post(
    "/generate",
    response_class=NdjsonStream,
    responses=BOTH_FORMS,
    openapi_extra=json_body(OllamaGenerate, sky=_GENERATE),
)
async def generate(request: Request) -> Response:
    """Answer one prompt, in lines of JSON unless `stream` is false. An empty prompt loads the model.

    With `keep_alive` 0 an empty prompt has the model go; where there are keys, both need the role admin.

    `curl http://127.0.0.1:8000/api/generate -d '{"model": "starter", "prompt": "Why is the sky blue?"}'`
    """
    began = time.monotonic()
    body = await read_request(request, OllamaGenerate)
    if only_loads(body):
        return await until_gone(request, _load(request, body))
    return await _answered(request, body, _begin(request, body, began))


@router.post(
    "/chat",
    response_class=NdjsonStream,
    responses=BOTH_FORMS,
    openapi_extra=json_body(OllamaChat, hello=_CHAT),
)
async def chat(request: Request) -> Response:
    """Answer a conversation, in lines of JSON unless `stream` is false. Without messages the model is loaded.

    What does not fit the window is trimmed, the oldest turns first: the header `x-llm-local-context-trimmed` and
    `warnings` at the end say so; `truncate` false refuses it instead.

    `curl http://127.0.0.1:8000/api/chat -d '{"model": "starter", "messages": [{"role": "user", "content": "Hi!"}]}'`
    """
    began = time.monotonic()
    body = await read_request(request, OllamaChat)
    if only_loads(body):
        return await until_gone(request, _load(request, body))
    return await _answered(request, body, _begin(request, body, began))


async def _answered(
    request: Request, body: OllamaGenerate | OllamaChat, begin: Coroutine[Any, Any, Run]
) -> Response:
    if body.stream is False:
        return await until_gone(request, _whole(begin))
    run = await until_gone(request, begin)
    return ndjson(request, run, headers=run.headers)


async def _whole(begin: Coroutine[Any, Any, Run]) -> Response:
    run = await begin
    return json_response(await run.whole(), headers=run.headers, media_type=JSON)


async def _begin(request: Request, body: OllamaGenerate | OllamaChat, began: float) -> Run:
    service = service_of(request)
    in_messages = isinstance(body, OllamaChat)
    with in_ollama_words(body.model, "chat" if in_messages else "generate"):
        asked = await _asked(request, service, body)
        reply = await service.begin(_work(asked, body))
    trimmed = None if reply.trimmed is None else (reply.trimmed.num_messages, reply.trimmed.num_tokens)
    token_bytes = reply.token_bytes if body.logprobs else None
    return Run(
        reply,
        AnswerWords(told_model(body.model, reply.model), in_messages=in_messages, token_bytes=token_bytes),
        began,
        warnings=warnings_of(asked.options, reply.info.context_length, trimmed, reply.notices),
        keeps_context=isinstance(body, OllamaGenerate) and not body.raw,
        ignored=(*asked.ignored, *ignored_fields(body, asked.options)),
    )


async def _asked(request: Request, service: Service, body: OllamaGenerate | OllamaChat) -> Asked:
    capped = service.config.is_explicit("max_new_tokens")
    model = await resolved_name(service, body.model)
    depends = not body.raw if isinstance(body, OllamaGenerate) else body.think is not None or bool(body.tools)
    card = await card_of(service, model) if depends else None
    return Asked(body, caller_of(request), model, card, capped=capped)


def _work(asked: Asked, body: OllamaGenerate | OllamaChat) -> Work:
    return chat_work(asked, body) if isinstance(body, OllamaChat) else generate_work(asked, body)


async def _load(request: Request, body: OllamaGenerate | OllamaChat) -> Response:
    """Bring a model into memory, or with `keep_alive` 0 have it go; one object, streamed or not.

    Raises:
        Forbidden: the caller's key has the role user.
    """
    if not caller_of(request).is_admin:
        raise Forbidden(
            "To load or unload a model needs a key with the role admin.", "A prompt loads it too."
        )
    service = service_of(request)
    stays_s = keep_alive_s(body.keep_alive)
    with in_ollama_words(body.model):
        model = await resolved_name(service, body.model)
        if stays_s == 0:
            await card_of(service, model)  # what is not here cannot go
            await service.unload(model)
        else:
            await service.load(model, stays_s)
    words = AnswerWords(body.model, in_messages=isinstance(body, OllamaChat))
    answer = words.end("unload" if stays_s == 0 else "load", {})
    unread = [name for name in type(body).model_fields if name not in _READ_TO_LOAD and getattr(body, name)]
    return json_response(answer, headers=ignored_header(ignored_names(body, *unread)), media_type=JSON)
