"""Bringing, naming and removing models in Ollama's dialect: `/api/pull`, `/api/copy`, `/api/delete`. For admins."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from llm_local.api.bodies import ignored_names, json_body
from llm_local.api.dependencies import admin_only, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response
from llm_local.api.ollama import PREFIX
from llm_local.api.ollama.errors import in_ollama_words, read_request
from llm_local.api.ollama.generation import BOTH_FORMS, JSON
from llm_local.api.ollama.names import asked_name, bare_name, resolved_name
from llm_local.api.ollama.schemas import OllamaCopy, OllamaNamed, OllamaPull
from llm_local.api.streams import NdjsonStream, ndjson
from llm_local.api.told_headers import ignored_header
from llm_local.errors import InvalidRequest, ModelNotFound, UnsupportedTask
from llm_local.events import Progress
from llm_local.service import Service

__all__ = ["pull_lines", "router"]

router = APIRouter(prefix=PREFIX, dependencies=[Depends(admin_only)])

_PULL: Final = {"model": "HuggingFaceTB/SmolLM2-135M-Instruct"}
_COPY: Final = {"source": "starter", "destination": "my-starter"}
_DELETE: Final = {"model": "my-starter"}
_SUCCESS: Final = {"status": "success"}


@router.post(
    "/pull",
    response_class=NdjsonStream,
    responses=BOTH_FORMS,
    openapi_extra=json_body(OllamaPull, small=_PULL),
)
async def pull(request: Request) -> Response:
    """Bring a model from the hub, telling how far it is in lines of JSON unless `stream` is false.

    `curl http://127.0.0.1:8000/api/pull -d '{"model": "HuggingFaceTB/SmolLM2-135M-Instruct"}'`
    """
    body = await read_request(request, OllamaPull)
    asked = asked_name(body.model, body.name)
    without_effect = ("insecure",) if body.insecure else ()
    headers = ignored_header(ignored_names(body, *without_effect))
    lines = _pulled(service_of(request), asked)
    if body.stream is False:
        last = await until_gone(request, _last(lines))
        return json_response(last, headers=headers, media_type=JSON)
    return ndjson(request, lines, headers=headers)


@router.post("/copy", response_class=Response, openapi_extra=json_body(OllamaCopy, second_name=_COPY))
async def copy(request: Request) -> Response:
    """Give a model a second name. A name that is taken is refused.

    `curl http://127.0.0.1:8000/api/copy -d '{"source": "starter", "destination": "my-starter"}'`
    """
    body = await read_request(request, OllamaCopy)
    for name in ("source", "destination"):
        if not getattr(body, name):
            raise InvalidRequest(f"{name} is required", param=name, kind="missing_field")
    source, destination = str(body.source), bare_name(str(body.destination))
    service = service_of(request)
    try:
        await service.copy(await resolved_name(service, source), destination)
    except ModelNotFound as error:
        raise ModelNotFound(f'model "{source}" not found', str(error)) from error
    return Response(headers=ignored_header(ignored_names(body)))


@router.delete("/delete", response_class=Response, openapi_extra=json_body(OllamaNamed, second_name=_DELETE))
async def delete(request: Request) -> Response:
    """Remove a model from the disk, or a second name of one. One that is in use is refused.

    `curl -X DELETE http://127.0.0.1:8000/api/delete -d '{"model": "my-starter"}'`
    """
    body = await read_request(request, OllamaNamed)
    asked = asked_name(body.model, body.name)
    service = service_of(request)
    with in_ollama_words(asked):
        await service.delete(await resolved_name(service, asked))
    return Response(headers=ignored_header(ignored_names(body)))


@router.post("/push", include_in_schema=False)
async def push() -> Response:
    """Refused: nothing is sent away from here."""
    raise InvalidRequest(
        "push is not supported: no model is sent away from this machine.", kind=UnsupportedTask.kind
    )


@router.post("/create", include_in_schema=False)
@router.post("/blobs/{digest}", include_in_schema=False)
async def create() -> Response:
    """Refused: models are not made here."""
    raise InvalidRequest(
        "create is not supported.",
        "/api/copy gives a model a second name, and `llm-local import` one to a folder of yours.",
        kind=UnsupportedTask.kind,
    )


async def pull_lines(progress: AsyncIterator[Progress], name: str) -> AsyncGenerator[dict[str, Any]]:
    """The lines of a download. It counts all files as one, whose digest only names it for whoever draws a bar."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    yield {"status": "pulling manifest"}
    last: tuple[int, int | None] | None = None
    async for event in progress:
        if (event.done, event.total) == last:
            continue
        last = (event.done, event.total)
        line = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}"}
        yield {**line, **({} if event.total is None else {"total": event.total}), "completed": event.done}
    if last is not None:
        yield {"status": "verifying sha256 digest"}  # done by then, file by file
    yield {"status": "writing manifest"}
    yield _SUCCESS


async def _pulled(service: Service, asked: str) -> AsyncGenerator[dict[str, Any]]:
    """Those of a pull. What is here and came from no hub is there already."""
    with in_ollama_words(asked):
        name = await resolved_name(service, asked)
        here = [one for one in await service.models() if one.name == name and one.state == "complete"]
        is_ours = bool(here) and here[0].kind != "hub"
        progress = cast(AsyncGenerator[Progress], _nothing() if is_ours else service.pull(name))
        try:
            async with aclosing(pull_lines(progress, name)) as lines:
                async for line in lines:
                    yield line
        finally:
            await progress.aclose()  # whoever left does not follow the download any more


async def _last(lines: AsyncGenerator[dict[str, Any]]) -> dict[str, Any]:
    line: dict[str, Any] = {}
    async with aclosing(lines):
        async for line in lines:  # noqa: B007  # the last one is told
            pass
    return line


async def _nothing() -> AsyncIterator[Progress]:
    """No progress."""
    none: tuple[Progress, ...] = ()
    for event in none:
        yield event
