"""From the hidden states of a text's tokens to one vector, in float32 whatever the model computes in."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import nn

from llm_local.embedding.layout import Dense, Pooling, PoolingMode, Step
from llm_local.errors import ModelCorrupt
from llm_local.loaders.safetensors import read_weights
from llm_local.store.selection import WEIGHTS

__all__ = ["Head", "pool"]


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling, num_prompt_tokens: int) -> torch.Tensor:
    """One vector a text, float32 [texts, modes * size].

    `hidden` [texts, tokens, size] is padded on the right; `mask` [texts, tokens] is 1 where there is a token. The first
    `num_prompt_tokens` of every text are left out where `pooling` does not include prompts.
    """
    hidden = hidden.float()
    counted = mask.bool()
    first = 0 if pooling.include_prompt else num_prompt_tokens
    last = counted.sum(dim=1) - 1
    counted = counted.clone()
    counted[:, :first] = False
    parts = [_one(mode, hidden, counted, first, last) for mode in pooling.modes]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _one(
    mode: PoolingMode, hidden: torch.Tensor, counted: torch.Tensor, first: int, last: torch.Tensor
) -> torch.Tensor:
    if mode == "cls":
        return hidden[:, first]
    if mode == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weights = counted.unsqueeze(-1).to(hidden.dtype)
    if mode == "max":
        return hidden.masked_fill(weights == 0, float("-inf")).amax(dim=1)
    if mode == "weighted_mean":  # the n-th token counts n times
        weights = weights * torch.arange(1, hidden.shape[1] + 1, device=hidden.device).view(1, -1, 1)
    total, size = (hidden * weights).sum(dim=1), weights.sum(dim=1)
    return total / (size.sqrt() if mode == "mean_sqrt_len" else size)


class Head:
    """What comes after the pooling: projections and scaling to length 1, in their order.

    Raises (from the constructor):
        ModelCorrupt: the weights of a projection are missing, damaged, or have other shapes than they should.
        UnsafeWeights: they are there only as pickle.
    """

    def __init__(self, steps: tuple[Step, ...], size: int, device: str) -> None:
        self._steps: list[_Projection | None] = []
        for step in steps:
            if isinstance(step, Dense):
                if step.in_features != size:
                    raise ModelCorrupt(
                        f"{step.folder.name}/config.json takes vectors of {step.in_features} numbers, but gets {size}.",
                        "The files come from different models; fetch the model again.",
                        file=f"{step.folder.name}/config.json",
                    )
                size = step.out_features
                self._steps.append(_Projection(step, device))
            else:
                self._steps.append(None)
        self.size = size
        """How many numbers a vector has at the end."""

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """The vectors [texts, size] after every step."""
        for step in self._steps:
            vectors = nn.functional.normalize(vectors, dim=1) if step is None else step(vectors)
        return vectors


class _Projection:
    """A Dense module with its weights."""

    def __init__(self, dense: Dense, device: str) -> None:
        self._dense = dense
        self._activation = getattr(nn, dense.activation)()
        shapes: dict[str, tuple[int, ...]] = {"linear.weight": (dense.out_features, dense.in_features)}
        if dense.bias:
            shapes["linear.bias"] = (dense.out_features,)
        if dense.residual and dense.in_features != dense.out_features:
            shapes["residual.weight"] = (dense.out_features, dense.in_features)
        if not any(dense.folder.glob("*model*")):
            raise ModelCorrupt(
                f"{dense.folder.name}/{WEIGHTS} is missing.",
                "Fetch the model again; one that has these weights only as pickle cannot be used.",
                file=f"{dense.folder.name}/{WEIGHTS}",
            )
        found = read_weights(dense.folder)
        file = f"{dense.folder.name}/{found.files[0].name}"
        stored = {name: tensor.shape for name, tensor in found.tensors.items()}
        if stored != shapes or len(found.files) != 1:
            raise ModelCorrupt(
                f"The weights in {file} do not fit their configuration.", "Fetch the model again.", file=file
            )
        self._weights = {name: one.float().to(device) for name, one in load_file(found.files[0]).items()}

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        out = nn.functional.linear(vectors, self._weights["linear.weight"], self._weights.get("linear.bias"))
        out = self._activation(out)
        if self._dense.residual:
            back = self._weights.get("residual.weight")
            out = out + (vectors if back is None else nn.functional.linear(vectors, back))
        return out
