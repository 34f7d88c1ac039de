"""The server and its models in the native dialect: what there is, what is loaded, what works, what is measured."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import PlainTextResponse, Response

from llm_local import __version__
from llm_local.api.bodies import json_body, read_body
from llm_local.api.dependencies import admin_only, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response
from llm_local.api.native.schemas import LoadBody, UnloadBody
from llm_local.api.native.translate import option_names, real_name, refuse_unknown
from llm_local.runtime.metrics import METRICS_TYPE
from llm_local.service import KnownModel, Loaded

__all__ = ["router"]

router: Final = APIRouter(tags=["native"])

_STARTER: Final = {"model": "starter"}
_CHAT_ONLY: Final = {
    "think": "thinking",
    "max_thinking_tokens": "thinking",
    "tools": "tools",
    "tool_choice": "tools",
}


@router.get("/")
@router.head("/", include_in_schema=False)
async def root(request: Request) -> Response:
    """Who answers here. On the port for Ollama's programs in the words that they look for.

    `curl http://127.0.0.1:8000/`
    """
    service = service_of(request)
    server = request.scope.get("server")
    if (
        server is not None
        and service.config.ollama_port is not None
        and server[1] == service.config.ollama_port
    ):
        return PlainTextResponse("Ollama is running")
    return json_response(
        {"name": "llm-local", "version": __version__, "docs": "/docs", "openapi": "/openapi.json"}
    )


@router.get("/info")
async def info(request: Request) -> Response:
    """The server: its version, default model, limits, and what it has loaded.

    `curl http://127.0.0.1:8000/info`
    """
    service = service_of(request)
    config = service.config
    return json_response(
        {
            "name": "llm-local",
            "version": __version__,
            "default_model": config.model_id,
            "uptime_s": round(time.monotonic() - request.app.state.began, 3),
            "loaded": [_loaded_object(one) for one in service.loaded()],
            "limits": {
                "max_loaded_models": config.max_loaded_models,
                "max_concurrent_requests": config.max_concurrent_requests,
                "max_waiting_requests": config.max_waiting_requests,
                "queue_timeout_s": config.queue_timeout_s,
                "rate_limit": config.rate_limit,
            },
        }
    )


@router.get("/models")
async def models(request: Request) -> Response:
    """The models on this machine, and which of them are loaded.

    `curl http://127.0.0.1:8000/models`
    """
    found = await service_of(request).models()
    return json_response({"models": [_model_object(one) for one in found]})


@router.post(
    "/models/load", dependencies=[Depends(admin_only)], openapi_extra=json_body(LoadBody, starter=_STARTER)
)
async def load(request: Request) -> Response:
    """Bring a model into memory. Needs a key with the role admin, where there are keys.

    `curl http://127.0.0.1:8000/models/load -d '{"model": "starter", "keep_alive_s": -1}'`
    """
    body = await read_body(request, LoadBody)
    refuse_unknown(body)
    loaded = await until_gone(request, service_of(request).load(body.model, body.keep_alive_s))
    return json_response(_loaded_object(loaded))


@router.post(
    "/models/unload",
    dependencies=[Depends(admin_only)],
    openapi_extra=json_body(UnloadBody, starter=_STARTER),
)
async def unload(request: Request) -> Response:
    """Take a model out of memory, once its answers are finished. Needs a key with the role admin.

    `unloaded` is false when it was not loaded.

    `curl http://127.0.0.1:8000/models/unload -d '{"model": "starter"}'`
    """
    body = await read_body(request, UnloadBody)
    refuse_unknown(body)
    was_loaded = await until_gone(request, service_of(request).unload(body.model))
    return json_response({"model": body.model, "unloaded": was_loaded})


@router.get("/capabilities")
async def capabilities(request: Request) -> Response:
    """What works with each model: every option it honors. One that is not named is refused, never ignored.

    `curl http://127.0.0.1:8000/capabilities`
    """
    found = await service_of(request).models()
    return json_response(
        {"models": {one.name: _capabilities_object(one) for one in found if one.state == "complete"}}
    )


@router.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(admin_only)])
async def metrics(request: Request) -> Response:
    """Counters and histograms for Prometheus. Needs a key with the role admin, where there are keys.

    `curl http://127.0.0.1:8000/metrics`
    """
    return Response(service_of(request).metrics_text(), media_type=METRICS_TYPE)


def _model_object(model: KnownModel) -> dict[str, Any]:
    found = dataclasses.asdict(model)
    found["capabilities"] = sorted(model.capabilities)
    found["loaded"] = None if model.loaded is None else _loaded_object(model.loaded)
    return found


def _loaded_object(loaded: Loaded) -> dict[str, Any]:
    found = dataclasses.asdict(loaded)
    found["info"].pop("path")  # where somebody's files lie is nobody else's business
    found["info"]["ref"] = real_name(loaded.name, loaded.info)
    return found


def _capabilities_object(model: KnownModel) -> dict[str, Any]:
    can = model.capabilities
    generates = bool(can & {"chat", "completion"})
    options = [*option_names(), "tools", "tool_choice"] if generates else []
    honored = [name for name in options if name not in _CHAT_ONLY or _CHAT_ONLY[name] in can]
    return {"capabilities": sorted(can), "context_length": model.context_length, "options": honored}
