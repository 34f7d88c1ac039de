"""What the native step runs: a decoder as structs that point to weights, and all that they point to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from llm_local.engine.kv_cache import KVLayout
from llm_local.engine.rotary_tables import RotaryTables
from llm_local.kernels.layout import LlmLayer, LlmModel

__all__ = ["NativeModel"]


class NativeModel:
    """A decoder; what `struct` points to lives as long as this does.

    `description` makes one of a transformers model, `image` one of what was kept of it. `kept` are tensors, or their
    owners, that the structs point into; `weight_bytes` is the size of all weights.
    """

    def __init__(
        self,
        struct: LlmModel,
        layers: ctypes.Array[LlmLayer],
        rotary: RotaryTables,
        layout: KVLayout,
        weight_bytes: int,
        kept: Sequence[Any],
    ) -> None:
        self.struct = struct
        self.layers = layers
        self.rotary = rotary
        self.layout = layout
        self.weight_bytes = weight_bytes
        self.kept = kept

    @property
    def vocab_size(self) -> int:
        """Logits of a token."""
        return int(self.struct.vocab)

    def reach(self, position: int) -> None:
        """Make sure that every position below `position` can be rotated."""
        self.rotary.reach(position)
