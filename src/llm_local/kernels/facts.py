"""What code around a linear layer looks at when it asks for its weight, where there is no weight as a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["WeightFacts"]


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """Shape, number format of the activations, and device: no numbers, so that nobody multiplies with packed bytes.

    Not a tensor of the meta device: torch multiplies with one of those without a word, and returns rubbish (2.13).
    """

    shape: torch.Size
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")
