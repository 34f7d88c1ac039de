"""All routes of the native dialect. Its envelope is `api.errors.NativeEnvelope`, that of every path no other has."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from llm_local.api.native import generation, models, texts

__all__ = ["router"]

router: Final = APIRouter()
router.include_router(models.router)
router.include_router(generation.router)
router.include_router(texts.router)
