"""Changes to logits that depend on what was already said. Pure: each returns new logits `[vocab]`, float32."""

from __future__ import annotations

from collections.abc import Mapping

import torch

__all__ = [
    "apply_frequency_penalty",
    "apply_logit_bias",
    "apply_presence_penalty",
    "apply_repetition_penalty",
]


def apply_logit_bias(logits: torch.Tensor, bias: Mapping[int, float]) -> torch.Tensor:
    """Add a constant to single tokens' logits. Ids beyond the vocabulary are the engine's to refuse."""
    ids = torch.tensor(list(bias), dtype=torch.long)
    amounts = torch.tensor(list(bias.values()), dtype=logits.dtype)
    return logits.index_add(0, ids, amounts)


def apply_repetition_penalty(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Divide positive and multiply negative logits of tokens in prompt or reply (Keskar et al. 2019).

    `seen` is a boolean `[vocab]`.
    """
    limits = torch.finfo(logits.dtype)
    penalty = max(penalty, limits.tiny)
    penalized = torch.where(logits > 0, logits / penalty, logits * penalty).clamp(max=limits.max)
    return torch.where(seen, penalized, logits)


def apply_presence_penalty(logits: torch.Tensor, counts: torch.Tensor, penalty: float) -> torch.Tensor:
    """Subtract `penalty` once from every token already in the reply. `counts` is `[vocab]`."""
    return logits - penalty * (counts > 0)


def apply_frequency_penalty(logits: torch.Tensor, counts: torch.Tensor, penalty: float) -> torch.Tensor:
    """Subtract `penalty` for each time a token is already in the reply. `counts` is `[vocab]`."""
    return logits - penalty * counts
