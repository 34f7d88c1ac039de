"""Who may let a tool run: asked before every call, unless they said always."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llm_local.messages import ToolCall
from llm_local.tools.tool import Tool

__all__ = ["Approval", "Approve", "allow_all", "deny_all"]


@dataclass(frozen=True, slots=True)
class Approval:
    """The answer to one call. `always` means this tool for the rest of the run; `reason` is for the model to read."""

    allowed: bool
    reason: str = ""
    always: bool = False


Approve = Callable[[ToolCall, Tool], Approval]


def deny_all(call: ToolCall, tool: Tool) -> Approval:
    """What happens where nobody is there to be asked."""
    return Approval(False)


def allow_all(call: ToolCall, tool: Tool) -> Approval:
    """For tools that can do no harm, whatever a model asks of them."""
    return Approval(True)
