"""OpenAI's dialect as one router, and the envelope of its failures."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from llm_local.api.openai import PREFIX, chat, completions, decisions, embeddings, models, responses
from llm_local.api.openai.errors import OpenAIEnvelope

__all__ = ["PREFIX", "envelope", "router"]

router = APIRouter(tags=["OpenAI"])
for part in (chat, completions, embeddings, models, responses, decisions):
    router.include_router(part.router)

envelope: Final = OpenAIEnvelope()
