"""What Influence's clients send."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llm_local.api.bodies import DialectModel

__all__ = ["InfluenceRequest"]


class InfluenceRequest(DialectModel):
    """`POST /v1/generate` and `/v1/generate_stream`. `model`, `stop` and `seed` are extensions.

    A prompt is continued as it is; with a `system` prompt it is a conversation's first question.
    """

    prompt: str
    system: str | None = None
    model: Annotated[str, Field(max_length=512)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
