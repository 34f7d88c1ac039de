"""Filters that shorten the list of candidates. Pure, over float32 logits.

`apply_top_k` takes the whole vocabulary and sorts; the others take its result, logits in descending order `[n]`.
Working on the sorted list makes every filter but one a prefix of it, and costs one sort for all of them.
Each filter sees the distribution renormalized over what the filters before it kept.
"""

from __future__ import annotations

import torch

__all__ = ["apply_min_p", "apply_temperature", "apply_top_k", "apply_top_p", "apply_typical_p"]

_GROUP = 64


def apply_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divide by `temperature` > 0. Shifted so that the highest becomes 0: then no temperature overflows."""
    return (logits - logits.max()) / max(temperature, torch.finfo(logits.dtype).tiny)


def apply_top_k(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` most likely of `logits` `[vocab]` (all of them for `k` = 0), in descending order, and their ids.

    Among equals the lowest id comes first, so `k` = 1 is the greedy choice.
    """
    if not 0 < k < logits.numel():
        return logits.sort(descending=True, stable=True)
    # `topk` alone takes equals in any order, and logits of a 16-bit model have many equals
    ids = _at_least(logits, _low_bound(logits, k))
    values, order = logits[ids].sort(descending=True, stable=True)
    return values[:k], ids[order[:k]]


def _low_bound(logits: torch.Tensor, k: int) -> float:
    """A value that at least `k` of `logits` reach, and few more.

    The highest of each group of 64, and of those the k-th: so many groups have a member that is at least that.
    """
    num_groups = logits.numel() // _GROUP
    if num_groups < 2 * k:
        return float(logits.topk(k).values[-1])
    highest = logits[: num_groups * _GROUP].numpy().reshape(_GROUP, num_groups).max(0)
    highest.partition(num_groups - k)
    return float(highest[num_groups - k])


def _at_least(logits: torch.Tensor, bound: float) -> torch.Tensor:
    """Ids of the logits that are `bound` or more, ascending. (numpy finds few among many ten times faster.)"""
    return torch.from_numpy((logits.numpy() >= bound).nonzero()[0])


def apply_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the fewest most likely candidates that together reach probability `p` (Holtzman et al. 2020)."""
    probabilities = logits.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    return logits[: max(1, int((before < p).sum()))]


def apply_min_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep candidates at least `p` times as likely as the most likely one (Nguyen et al. 2024)."""
    probabilities = logits.softmax(-1)
    return logits[: max(1, int((probabilities >= p * probabilities[0]).sum()))]


def apply_typical_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep candidates whose surprise is nearest the entropy, up to probability `p` (Meister et al. 2022).

    The kept ones need not be a prefix, so the others become minus infinity.
    """
    log_probabilities = logits.log_softmax(-1)
    probabilities = log_probabilities.exp()
    # 0 * -inf is 0 here: an impossible candidate adds nothing to the entropy
    entropy = -(probabilities * log_probabilities).nansum()
    distance, order = (-log_probabilities - entropy).abs().sort(stable=True)
    mass = probabilities[order].cumsum(-1)
    last = min(int((mass < p).sum()), logits.numel() - 1)
    keep = torch.zeros_like(logits, dtype=torch.bool)
    keep[order] = distance <= distance[last]
    return logits.masked_fill(~keep, -torch.inf)
