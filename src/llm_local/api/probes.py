"""What anybody may ask without a key: whether the server is there, and whether it can answer."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from llm_local.api.dependencies import service_of
from llm_local.api.errors import json_response
from llm_local.api.lifecycle import Lifecycle

__all__ = ["probes"]

probes: Final = APIRouter(tags=["public"])


@probes.api_route("/health", methods=["GET", "HEAD"], summary="Is the server there?")
@probes.api_route("/live", methods=["GET", "HEAD"], summary="Is the server there?")
async def live() -> Response:
    """Answers 200 for as long as the server can answer at all. Never waits for a model. Needs no key.

    `curl http://127.0.0.1:8000/health`
    """
    return json_response({"status": "ok"})


@probes.api_route("/ready", methods=["GET", "HEAD"], summary="Can the default model answer?")
async def ready(request: Request) -> Response:
    """Answers 200 once a request to the default model would be served now, else 503 with the reason. Needs no key.

    `curl http://127.0.0.1:8000/ready`
    """
    lifecycle: Lifecycle = request.app.state.lifecycle
    found = service_of(request).readiness()
    reason = "The server is shutting down." if lifecycle.draining else found.reason
    if lifecycle.draining or not found.ready:
        return json_response({"status": "not ready", "reason": reason}, 503, {"retry-after": "1"})
    return json_response({"status": "ready"})
