"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.dependencies import service_of
from llm_local.api.errors import json_response
from llm_local.api.openai import PREFIX
from llm_local.api.openai.conversation import bare_model
from llm_local.errors import ModelNotFound
from llm_local.service import KnownModel

__all__ = ["list_models", "model_card", "retrieve_model", "router"]

router = APIRouter(prefix=PREFIX)

# Text, as LibreChat wants it: it learns the context length only of entries that have a price.
_FREE: Final = {"prompt": "0", "completion": "0"}


@router.get("/models")
async def list_models(request: Request) -> Response:
    """The models on this machine.

    `curl http://127.0.0.1:8000/v1/models`
    """
    known = await service_of(request).models()
    cards = [model_card(model) for model in known if model.state == "complete"]
    return json_response({"object": "list", "data": cards})


@router.get("/models/{model_id:path}")
async def retrieve_model(request: Request, model_id: str) -> Response:
    """One model on this machine, with its context length.

    `curl http://127.0.0.1:8000/v1/models/starter`
    """
    for model in await service_of(request).models():
        if model.name in (model_id, bare_model(model_id)) and model.state == "complete":
            return json_response(model_card(model))
    raise ModelNotFound(f"The model `{model_id}` does not exist or you do not have access to it.")


def model_card(model: KnownModel) -> dict[str, Any]:
    """A model as OpenAI lists it, and under the names by which clients look for its context length."""
    card: dict[str, Any] = {
        "id": model.name,
        "object": "model",
        "created": int(model.modified),
        "owned_by": "library",
        "pricing": _FREE,
        "capabilities": sorted(model.capabilities),
    }
    if model.context_length is not None:
        card |= {
            "context_length": model.context_length,
            "max_model_len": model.context_length,
            "meta": {"n_ctx": model.context_length},
        }
    return card
