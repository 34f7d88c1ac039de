"""Log-probabilities as the model itself gives them, before any sampling option."""

from __future__ import annotations

import torch

from llm_local.events import TokenLogprob
from llm_local.sampling.filters import apply_top_k

__all__ = ["token_logprob"]


def token_logprob(logits: torch.Tensor, token_id: int, num_top: int) -> TokenLogprob:
    """Natural log-probability of `token_id` under `logits` `[vocab]`, and of the `num_top` most likely tokens."""
    log_probabilities = logits.log_softmax(-1)
    top: tuple[tuple[int, float], ...] = ()
    if num_top:
        values, ids = apply_top_k(log_probabilities, num_top)
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token_id=token_id, logprob=float(log_probabilities[token_id]), top=top)
