"""`POST /v1/embeddings`."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.bodies import ignored_names, json_body, read_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import large_json_response
from llm_local.api.naming import told_model
from llm_local.api.openai import PREFIX
from llm_local.api.openai.conversation import bare_model
from llm_local.api.openai.errors import in_openai_words
from llm_local.api.openai.schemas import EmbeddingRequest
from llm_local.api.told_headers import ignored_header
from llm_local.errors import InvalidRequest
from llm_local.service import EmbeddedTexts

__all__ = ["create_embeddings", "embedding_list", "inputs_of", "router"]

router = APIRouter(prefix=PREFIX)

_EXAMPLE = {"model": "starter", "input": ["The sky is blue.", "Grass is green."]}


@router.post("/embeddings", openapi_extra=json_body(EmbeddingRequest, texts=_EXAMPLE))
async def create_embeddings(request: Request) -> Response:
    """One vector for each text, or for each list of token ids.

    `curl http://127.0.0.1:8000/v1/embeddings -d '{"model": "starter", "input": "The sky is blue."}'`
    """
    body = await read_body(request, EmbeddingRequest)
    inputs = inputs_of(body.input)
    service = service_of(request)
    with in_openai_words(body.model, "input"):
        work = service.embed(caller_of(request), bare_model(body.model), inputs, dimensions=body.dimensions)
        embedded = await until_gone(request, work)
    # many vectors take a while to write, in which nobody else should wait
    shown = await asyncio.to_thread(
        embedding_list, told_model(body.model, embedded.model), embedded, body.encoding_format or "float"
    )
    return await large_json_response(shown, headers=ignored_header(ignored_names(body)))


def inputs_of(
    given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
) -> list[str | tuple[int, ...]]:
    """The inputs, each a text or token ids.

    Raises:
        InvalidRequest: there is none, or one is empty.
    """
    whole = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
    inputs: list[Any] = [given] if whole else list(given)
    if not inputs:
        raise InvalidRequest("There is no input.", "Give a text, or a list of texts.", param="input")
    for index, one in enumerate(inputs):
        if not one:
            raise InvalidRequest(f"Input {index + 1} is empty.", "Leave it out.", param="input")
    return [one if isinstance(one, str) else tuple(one) for one in inputs]


def embedding_list(model: str, embedded: EmbeddedTexts, encoding: str) -> dict[str, Any]:
    """The vectors as OpenAI shows them: numbers, or the base64 of little-endian float32."""
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, encoding)}
            for index, vector in enumerate(embedded.vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": embedded.prompt_tokens, "total_tokens": embedded.prompt_tokens},
    }


def _encoded(vector: Sequence[float], encoding: str) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return [float(number) for number in vector]
