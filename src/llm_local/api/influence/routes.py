"""`POST /v1/generate` and `POST /v1/generate_stream`. Failures have OpenAI's envelope, as all of `/v1`."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from fastapi.responses import Response

from llm_local.api.bodies import ignored_names, json_body, read_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import Failure, json_response
from llm_local.api.influence.schemas import InfluenceRequest
from llm_local.api.influence.translate import influence_work, shown_answer, shown_event
from llm_local.api.native.replies import Run
from llm_local.api.openai.errors import OpenAIEnvelope, in_openai_words
from llm_local.api.streams import EventStream, SseEvent, sse
from llm_local.api.told_headers import ignored_header

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["Influence"])

_EXAMPLE = {"prompt": "Once upon a time", "max_tokens": 40}


@router.post("/generate", openapi_extra=json_body(InfluenceRequest, continue_a_text=_EXAMPLE))
async def influence_generate(request: Request) -> Response:
    """Continue a text as it is, without chat template; with `system`, answer it as a question.

    `curl http://127.0.0.1:8000/v1/generate -d '{"prompt": "Once upon a time", "max_tokens": 40}'`
    """
    began = time.monotonic()
    body = await read_body(request, InfluenceRequest)
    return await until_gone(request, _answer(request, body, began))


@router.post(
    "/generate_stream",
    response_class=EventStream,
    openapi_extra=json_body(InfluenceRequest, continue_a_text=_EXAMPLE),
)
async def influence_generate_stream(request: Request) -> Response:
    """The same as server-sent events: `token` with a piece of text as it is, then `finish` with the counts; or `error`.

    `curl -N http://127.0.0.1:8000/v1/generate_stream -d '{"prompt": "Once upon a time", "max_tokens": 40}'`
    """
    began = time.monotonic()
    body = await read_body(request, InfluenceRequest)
    run = await until_gone(request, _begin(request, body, began))
    headers = {**ignored_header(ignored_names(body)), **run.headers}
    return sse(request, _Pieces(run), on_error=_error_event, headers=headers)


class _Pieces:
    """A native stream's events, as Influence's clients read them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pieces = self._shown()

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> SseEvent:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """End the reply."""
        try:
            await self._pieces.aclose()
        finally:
            await self._run.aclose()

    async def _shown(self) -> AsyncGenerator[SseEvent]:
        async for event in self._run:
            piece = shown_event(event)
            if piece is not None:
                yield piece


async def _begin(request: Request, body: InfluenceRequest, began: float) -> Run:
    service = service_of(request)
    work = influence_work(body, caller_of(request))
    with in_openai_words(body.model or service.config.model_id, "prompt"):
        return Run(await service.begin(work), began)


async def _answer(request: Request, body: InfluenceRequest, began: float) -> Response:
    run = await _begin(request, body, began)
    answer = await run.whole()
    return json_response(shown_answer(answer), headers={**ignored_header(ignored_names(body)), **run.headers})


def _error_event(failure: Failure) -> SseEvent:
    return SseEvent(OpenAIEnvelope().body(failure), "error")
