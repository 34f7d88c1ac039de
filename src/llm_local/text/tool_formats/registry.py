"""The formats there are, and which of them a model writes."""

from __future__ import annotations

from typing import Final

from llm_local.text.tool_formats import (
    cohere,
    gemma,
    generic,
    glm,
    granite,
    harmony,
    hermes,
    llama,
    mistral,
    phi,
    qwen_xml,
)
from llm_local.text.tool_formats.format import ToolFormat

__all__ = ["FORMATS", "find_format"]

# The first that fits: the more particular ones come before those that share a marker with them.
FORMATS: Final[tuple[ToolFormat, ...]] = (
    harmony.FORMAT,
    cohere.FORMAT,
    mistral.LISTS,
    mistral.NAMED,
    gemma.FUNCTION_GEMMA,
    gemma.GEMMA4,
    phi.FORMAT,
    granite.FORMAT,
    qwen_xml.FORMAT,
    glm.FORMAT,
    hermes.FORMAT,
    llama.FORMAT,
    generic.FORMAT,
)


def find_format(source: str) -> ToolFormat:
    """The format that a chat template's source belongs to; the generic one when no other fits."""
    return next(one for one in FORMATS if one.fits(source))
