"""A decoder as the native step runs it, as data: kept from one start for the next ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["DecoderImage", "Span"]


@dataclass(frozen=True, slots=True)
class Span:
    """Where weights lie in this process: `num_bytes` from the address `begin` on.

    They are what a region has from `offset` on.
    """

    begin: int
    num_bytes: int
    region: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class DecoderImage:
    """What `engine.image` writes and reads. `facts` is JSON, its pointers are pairs of a region and an offset.

    `regions` are uint8: where the weights lie, and last what was not stored with them.
    """

    facts: Mapping[str, Any]
    regions: tuple[torch.Tensor, ...]
