"""`POST /api/embed`, and the older `POST /api/embeddings`."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from llm_local.api.bodies import ignored_names, json_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response, large_json_response
from llm_local.api.naming import told_model
from llm_local.api.ollama import PREFIX
from llm_local.api.ollama.durations import keep_alive_s, nanoseconds
from llm_local.api.ollama.errors import in_ollama_words, read_request
from llm_local.api.ollama.generation import JSON
from llm_local.api.ollama.names import resolved_name
from llm_local.api.ollama.schemas import OllamaEmbed, OllamaEmbeddings
from llm_local.api.told_headers import TRIMMED_HEADER, ignored_header
from llm_local.errors import InvalidRequest
from llm_local.service import EmbeddedTexts

__all__ = ["router", "texts_of", "unit_vector"]

router = APIRouter(prefix=PREFIX)

_EMBED: Final = {"model": "starter", "input": ["The sky is blue.", "Grass is green."]}
_EMBEDDINGS: Final = {"model": "starter", "prompt": "The sky is blue."}


@router.post("/embed", openapi_extra=json_body(OllamaEmbed, texts=_EMBED))
async def embed(request: Request) -> Response:
    """One vector of length 1 for each text. What is too long is cut, which a header says, unless `truncate` is false.

    `curl http://127.0.0.1:8000/api/embed -d '{"model": "starter", "input": "The sky is blue."}'`
    """
    began = time.monotonic()
    body = await read_request(request, OllamaEmbed)
    texts = texts_of(body.input)
    found = await until_gone(
        request, _embedded(request, body, texts, body.dimensions or None, truncate=body.truncate is not False)
    )
    # many vectors take a while to write, in which nobody else should wait
    vectors = await asyncio.to_thread(lambda: [unit_vector(vector) for vector in found.vectors])
    answer: dict[str, Any] = {
        "model": told_model(body.model, found.model),
        "embeddings": vectors,
        "total_duration": nanoseconds(time.monotonic() - began),
        "load_duration": nanoseconds(found.load_s),
        "prompt_eval_count": found.prompt_tokens,
    }
    return await large_json_response(answer, headers=_headers(request, body, found), media_type=JSON)


@router.post("/embeddings", openapi_extra=json_body(OllamaEmbeddings, text=_EMBEDDINGS))
async def embeddings(request: Request) -> Response:
    """The vector of one text, as the model makes it. Prefer /api/embed.

    `curl http://127.0.0.1:8000/api/embeddings -d '{"model": "starter", "prompt": "The sky is blue."}'`
    """
    body = await read_request(request, OllamaEmbeddings)
    texts = [body.prompt] if body.prompt else []
    found = await until_gone(request, _embedded(request, body, texts, None, truncate=True))
    vector = list(found.vectors[0]) if found.vectors else []
    return json_response({"embedding": vector}, headers=_headers(request, body, found), media_type=JSON)


def texts_of(given: Any) -> list[str]:
    """The texts of a request; none where it only loads the model.

    Raises:
        InvalidRequest: something else than texts.
    """
    texts = [given] if isinstance(given, str) else given
    if texts is None or texts == [""]:
        return []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest("invalid input type", param="input")
    return texts


def unit_vector(vector: Sequence[float]) -> list[float]:
    """A vector scaled to length 1; one of zeros stays."""
    length = math.sqrt(math.fsum(number * number for number in vector))
    return [number / length for number in vector] if length else list(vector)


async def _embedded(
    request: Request,
    body: OllamaEmbed | OllamaEmbeddings,
    texts: list[str],
    dimensions: int | None,
    *,
    truncate: bool,
) -> EmbeddedTexts:
    service, caller = service_of(request), caller_of(request)
    stays_s = keep_alive_s(body.keep_alive)
    stays_s = stays_s if caller.is_admin else None  # it holds for everybody
    with in_ollama_words(body.model, "embed"):
        model = await resolved_name(service, body.model)
        # to load it a model is given a text of its own, since one may embed that does not write
        asked = texts or ["a"]
        found = await service.embed(
            caller, model, asked, dimensions=dimensions, truncate=truncate, keep_alive_s=stays_s
        )
    return found if texts else EmbeddedTexts(found.model, (), (), (), found.load_s, 0.0)


def _headers(request: Request, body: OllamaEmbed | OllamaEmbeddings, found: EmbeddedTexts) -> dict[str, str]:
    without_effect = ["options"] if body.options else []
    if body.keep_alive is not None and not caller_of(request).is_admin:
        without_effect.append("keep_alive")
    headers = ignored_header(ignored_names(body, *without_effect))
    if any(found.truncated_tokens):
        headers[TRIMMED_HEADER] = f"tokens={sum(found.truncated_tokens)}"
    return headers
