"""What a tool is to the loop: what the model reads about it, and what runs when it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_local.messages import ToolDefinition

__all__ = ["Tool", "ToolFailure"]


class ToolFailure(Exception):
    """A tool ran and failed. The message goes to the model, which may do better in its next call."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool that can be called.

    `run` takes the arguments, which satisfy `definition.parameters`, and gives the result as text; it raises
    ToolFailure where the model should read what went wrong. `source` says for people where the tool comes from:
    `function`, `mcp:NAME`, `plug-in:NAME`. `time_limit_s`: seconds that `run` may take, None for the loop's own limit.
    """

    definition: ToolDefinition
    run: Callable[[Mapping[str, Any]], str]
    source: str
    time_limit_s: float | None = None

    @property
    def name(self) -> str:
        """The name the model calls it by."""
        return self.definition.name
