"""Anthropic's dialect: messages and their token counts under `/v1/messages`."""

from __future__ import annotations

from typing import Final

__all__ = ["PREFIX"]

PREFIX: Final = "/v1/messages"
