"""Ollama's dialect: generate, chat, embeddings and the models of this machine under `/api`."""

from __future__ import annotations

from typing import Final

__all__ = ["PREFIX"]

PREFIX: Final = "/api"
