"""Masks that come later than the logits they are for: one sequence waits, the others go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from llm_local.engine.protocol import TokenMask

__all__ = ["MOMENT_S", "WAIT_S", "Held", "comes_within"]

# Most masks are there before the logits. For one that is not, the others wait no longer than this; when there are no
# others, so much longer that asking again costs no time.
MOMENT_S: Final = 0.0005
WAIT_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Held:
    """Logits whose mask has not come yet: `rows` `[1 + guesses, vocab]` after the last token and after each guess."""

    rows: torch.Tensor
    drafts: tuple[int, ...]


def comes_within(seconds: float, mask: TokenMask | None) -> bool:
    """True when the next token can be sampled without waiting longer than that for its mask."""
    try:
        return mask is None or mask.ready(seconds)
    except Exception:  # a mask is foreign code, and fails when it is asked for
        return True
