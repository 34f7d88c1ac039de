"""Log-probabilities as the model itself gives them, before any sampling option."""

from __future__ import annotations

import torch

from llm_local.events import TokenLogprob

__all__ = ["token_logprob"]


def token_logprob(logits: torch.Tensor, token_id: int, num_top: int) -> TokenLogprob:
    """Natural log-probability of `token_id` under `logits` `[vocab]`, and of the `num_top` most likely tokens."""
    normalizer = logits.logsumexp(-1)
    top: tuple[tuple[int, float], ...] = ()
    if num_top:
        values, ids = logits.topk(min(num_top, logits.numel()))
        top = tuple(zip(ids.tolist(), (values - normalizer).tolist(), strict=True))
    return TokenLogprob(token_id=token_id, logprob=float(logits[token_id] - normalizer), top=top)
