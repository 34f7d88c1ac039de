"""Ollama's dialect as one router, and the envelope of its failures."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from llm_local.api.ollama import PREFIX, embeddings, generation, models, shelf
from llm_local.api.ollama.errors import OllamaEnvelope

__all__ = ["PREFIX", "envelope", "router"]

router = APIRouter(tags=["Ollama"])
for part in (generation, embeddings, models, shelf):
    router.include_router(part.router)

envelope: Final = OllamaEnvelope()
