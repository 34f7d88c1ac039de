"""What models there are, in Ollama's dialect: `/api/tags`, `/api/show`, `/api/ps`; and `/api/version`."""

from __future__ import annotations

import time
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local import __version__
from llm_local.api.bodies import ignored_names, json_body
from llm_local.api.dependencies import service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response
from llm_local.api.ollama import PREFIX
from llm_local.api.ollama.cards import by_name, listed_model, running_model, shown_model
from llm_local.api.ollama.errors import in_ollama_words, read_request
from llm_local.api.ollama.generation import JSON
from llm_local.api.ollama.names import asked_name, resolved_name
from llm_local.api.ollama.schemas import OllamaShow
from llm_local.api.told_headers import ignored_header
from llm_local.service import Service, ShownModel

__all__ = ["OLLAMA_VERSION", "router"]

router = APIRouter(prefix=PREFIX)

OLLAMA_VERSION: Final = "0.12.6"
"""The version of Ollama whose dialect this is. Clients refuse old ones."""

_STARTER: Final = {"model": "starter"}


@router.get("/version")
@router.head("/version", include_in_schema=False)
async def version() -> Response:
    """The version of Ollama that is spoken here, and our own.

    `curl http://127.0.0.1:8000/api/version`
    """
    return json_response({"version": OLLAMA_VERSION, "llm_local": __version__}, media_type=JSON)


@router.get("/tags")
@router.head("/tags", include_in_schema=False)
@router.post("/tags", include_in_schema=False)  # what some clients send
async def tags(request: Request) -> Response:
    """The models on this machine, the newest first.

    `curl http://127.0.0.1:8000/api/tags`
    """
    known = [one for one in await service_of(request).models() if one.state == "complete"]
    known.sort(key=lambda one: -one.modified)
    return json_response({"models": [listed_model(one) for one in known]}, media_type=JSON)


@router.get("/ps")
@router.head("/ps", include_in_schema=False)
async def running(request: Request) -> Response:
    """The models in memory, those that stay longest first.

    `curl http://127.0.0.1:8000/api/ps`
    """
    service = service_of(request)
    loaded = by_name(service.loaded())
    known = {one.name: one for one in await service.models()} if loaded else {}
    now_ns = time.time_ns()
    found = [running_model(one, known.get(one.name), now_ns) for one in loaded]
    return json_response({"models": found}, media_type=JSON)


@router.post("/show", openapi_extra=json_body(OllamaShow, starter=_STARTER))
async def show(request: Request) -> Response:
    """All that a model's files tell: template, parameters, sizes, and what it can do.

    `curl http://127.0.0.1:8000/api/show -d '{"model": "starter"}'`
    """
    body = await read_request(request, OllamaShow)
    asked = asked_name(body.model, body.name)
    with in_ollama_words(asked):
        shown = await until_gone(request, _shown(service_of(request), asked))
    without_effect = ("verbose",) if body.verbose else ()
    headers = ignored_header(ignored_names(body, *without_effect))
    return json_response(shown_model(shown), headers=headers, media_type=JSON)


async def _shown(service: Service, asked: str) -> ShownModel:
    name = await resolved_name(service, asked)
    return await service.show(name)
