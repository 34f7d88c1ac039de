"""How much the tools of one conversation may do before somebody asks again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm_local.options import Bound

__all__ = ["LIMIT_BOUNDS", "ToolLimits"]

LIMIT_BOUNDS: Final = {
    "max_rounds": Bound(1, 1000, integer=True),
    "max_calls": Bound(1, 10_000, integer=True),
    "call_s": Bound(0.0, 86_400.0, open_low=True),
    "max_result_chars": Bound(100, 10_000_000, integer=True),
}


@dataclass(frozen=True, slots=True)
class ToolLimits:
    """Caps of one tool loop.

    - `max_rounds`: replies of the model whose calls are run. The reply after the last of them must be the answer.
    - `max_calls`: calls that are run, all rounds together.
    - `call_s`: seconds one call may take, unless its tool says otherwise.
    - `max_result_chars`: characters of one result that the model reads.

    Raises:
        InvalidRequest: a value out of its bound; `param` names the field.
    """

    max_rounds: int = 8
    max_calls: int = 64
    call_s: float = 30.0
    max_result_chars: int = 20_000

    def __post_init__(self) -> None:
        for name, bound in LIMIT_BOUNDS.items():
            bound.check(name, getattr(self, name))
