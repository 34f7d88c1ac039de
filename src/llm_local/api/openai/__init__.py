"""OpenAI's dialect: chat completions, completions, embeddings, models and responses under `/v1`."""

from __future__ import annotations

from typing import Final

__all__ = ["PREFIX"]

PREFIX: Final = "/v1"
