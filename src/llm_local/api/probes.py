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


@probes.get("/health")
@probes.head("/health", include_in_schema=False)
async def health() -> Response:
    """Is the server there? Answers 200 for as long as it can answer at all, without a key or a model.

    `curl http://127.0.0.1:8000/health`
    """
    return json_response({"status": "ok"})


@probes.get("/live")
@probes.head("/live", include_in_schema=False)
async def live() -> Response:
    """The same as /health, under the name that some orchestrators use. Needs no key.

    `curl http://127.0.0.1:8000/live`
    """
    return json_response({"status": "ok"})


@probes.get("/ready")
@probes.head("/ready", include_in_schema=False)
async def ready(request: Request) -> Response:
    """Can the default model answer now? Answers 200 if so, else 503 with the reason. Needs no key.

    `curl http://127.0.0.1:8000/ready`
    """
    lifecycle: Lifecycle = request.app.state.lifecycle
    found = service_of(request).readiness()
    reason = "The server is shutting down." if lifecycle.draining else found.reason
    if lifecycle.draining or not found.ready:
        return json_response({"status": "not ready", "reason": reason}, 503, {"retry-after": "1"})
    return json_response({"status": "ready"})
