"""Texts and vectors in the native dialect: embeddings, ranking, tokens, and the exact prompt."""

from __future__ import annotations

import dataclasses
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from llm_local.api.bodies import json_body, read_body
from llm_local.api.dependencies import caller_of, service_of
from llm_local.api.disconnect import until_gone
from llm_local.api.errors import json_response, large_json_response
from llm_local.api.native.conversation import find_keeper
from llm_local.api.native.schemas import (
    MAX_TEXTS,
    ChatBody,
    DetokenizeBody,
    EmbeddingsBody,
    RerankBody,
    TokenizeBody,
)
from llm_local.api.native.translate import chat_work, refuse_unknown
from llm_local.errors import InvalidRequest

__all__ = ["router"]

router: Final = APIRouter(tags=["native"])

_HELLO: Final = {"messages": [{"role": "user", "content": "Hello!"}]}
_RANK: Final = {"query": "cats", "documents": ["Dogs bark.", "Cats purr."]}


@router.post("/embeddings", openapi_extra=json_body(EmbeddingsBody, two={"texts": ["one text", "another"]}))
async def embeddings(request: Request) -> Response:
    """Turn texts into vectors, in their order.

    `curl http://127.0.0.1:8000/embeddings -d '{"texts": ["one text", "another"]}'`
    """
    body = await read_body(request, EmbeddingsBody)
    refuse_unknown(body)
    texts = [body.texts] if isinstance(body.texts, str) else body.texts
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise InvalidRequest(f"texts must hold 1 to {MAX_TEXTS} texts.", param="texts")
    service, caller = service_of(request), caller_of(request)
    found = await until_gone(request, service.embed(caller, body.model, texts, dimensions=body.dimensions))
    return await large_json_response(
        {
            "model": found.model,
            "embeddings": found.vectors,
            "usage": {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens},
            "token_counts": list(found.token_counts),
            "truncated_tokens": list(found.truncated_tokens),
            "timings": {"load_s": round(found.load_s, 6), "embed_s": round(found.embed_s, 6)},
            "notices": list(found.notices),
        }
    )


@router.post("/rerank", openapi_extra=json_body(RerankBody, cats=_RANK))
async def rerank(request: Request) -> Response:
    """Put documents in the order of how well they fit a query; scores from 0 to 1, the best first.

    `curl http://127.0.0.1:8000/rerank -d '{"query": "cats", "documents": ["Dogs bark.", "Cats purr."]}'`
    """
    body = await read_body(request, RerankBody)
    refuse_unknown(body)
    service, caller = service_of(request), caller_of(request)
    work = service.rerank(caller, body.model, body.query, body.documents, top_n=body.top_n)
    ranking = await until_gone(request, work)
    results = [
        {"index": one.index, "score": one.score, "document": body.documents[one.index]} for one in ranking
    ]
    usage = {"prompt_tokens": ranking.prompt_tokens, "total_tokens": ranking.prompt_tokens}
    return json_response({"model": ranking.model, "results": results, "usage": usage})


@router.post("/tokenize", openapi_extra=json_body(TokenizeBody, hello={"text": "Hello!"}))
async def tokenize(request: Request) -> Response:
    """The token ids of a text.

    `curl http://127.0.0.1:8000/tokenize -d '{"text": "Hello!"}'`
    """
    body = await read_body(request, TokenizeBody)
    refuse_unknown(body)
    service, caller = service_of(request), caller_of(request)
    ids = list(
        await until_gone(request, service.tokenize(caller, body.model, body.text, special=body.special))
    )
    return json_response({"model": service.told_name(body.model), "ids": ids, "num_tokens": len(ids)})


@router.post("/detokenize", openapi_extra=json_body(DetokenizeBody, some={"ids": [1, 2, 3]}))
async def detokenize(request: Request) -> Response:
    """The text of token ids.

    `curl http://127.0.0.1:8000/detokenize -d '{"ids": [40, 41, 42]}'`
    """
    body = await read_body(request, DetokenizeBody)
    refuse_unknown(body)
    service, caller = service_of(request), caller_of(request)
    text = await until_gone(request, service.detokenize(caller, body.model, body.ids, special=body.special))
    return json_response({"model": service.told_name(body.model), "text": text})


@router.post("/apply-template", openapi_extra=json_body(ChatBody, hello=_HELLO))
async def apply_template(request: Request) -> Response:
    """Exactly what the model would see of a conversation: the text, its token ids and how many there are.

    `curl http://127.0.0.1:8000/apply-template -d '{"messages": [{"role": "user", "content": "Hello!"}]}'`
    """
    body = await read_body(request, ChatBody)
    refuse_unknown(body)
    keeper = await find_keeper(request, body)
    work = chat_work(body, caller_of(request), () if keeper is None else keeper.before)
    rendered = await until_gone(request, service_of(request).render(work))
    found = dataclasses.asdict(rendered)
    return json_response({**found, "prompt_tokens": len(rendered.prompt_ids)})
