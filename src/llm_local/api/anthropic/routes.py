"""Anthropic's dialect as one router, and the envelope of its failures."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from llm_local.api.anthropic import PREFIX, messages
from llm_local.api.anthropic.errors import AnthropicEnvelope

__all__ = ["PREFIX", "envelope", "router"]

router = APIRouter(tags=["Anthropic"])
router.include_router(messages.router)

envelope: Final = AnthropicEnvelope()
