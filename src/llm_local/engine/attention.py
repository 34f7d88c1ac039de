"""The one attention function of the packed forward, registered with transformers' `AttentionInterface`.

All scheduled tokens of all sequences lie side by side in one row; each segment of the row attends to the keys
and values of its own sequence only. There is no padding and no mask to build across sequences: transformers
asks for no mask when the registered name is unknown to its `AttentionMaskInterface`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch.nn.functional import scaled_dot_product_attention

from llm_local.engine.packed_row import Segment
from llm_local.errors import EngineError

__all__ = [
    "ATTENTION_NAME",
    "AttentionShape",
    "Attend",
    "TorchAttention",
    "ragged_attention",
    "register",
]

ATTENTION_NAME = "llm_local_ragged"


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What a layer asks of its attention, beside queries, keys and values. `window` in tokens, None: no window."""

    scale: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None  # [heads]

    @property
    def plain(self) -> bool:
        """True when a fused kernel of torch takes it."""
        return self.softcap is None and self.sinks is None


class Attend(Protocol):
    """Attention of one layer over all segments of a row."""

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: AttentionShape
    ) -> torch.Tensor:
        """`query`, `key`, `value` `[heads, tokens, dim]`; returns `[tokens, heads, value_dim]`."""


def ragged_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    attend: Attend | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of `query` `[1, heads, tokens, dim]`, by whoever runs the forward pass: `attend`.

    The signature is transformers' (hence its length). Returns `[1, tokens, heads, value_dim]`.

    Raises:
        EngineError: the architecture does not hand the segments down, or built a mask of its own.
    """
    if attend is None or attention_mask is not None:
        raise EngineError(f"{type(module).__name__} does not support the packed forward.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    shape = AttentionShape(scale, sliding_window, softcap, s_aux)
    return attend(cast(int, module.layer_idx), query[0], key[0], value[0], shape)[None], None


class TorchAttention:
    """Attention by torch: each segment over its own sequence's keys and values."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: AttentionShape
    ) -> torch.Tensor:
        """See `Attend`."""
        outputs = []
        for segment in self._segments:
            here = slice(segment.offset, segment.offset + segment.length)
            keys, values = segment.kv.append(layer, key[:, here], value[:, here], shape.window)
            # a quantized model computes in float32 and keeps bfloat16
            keys, values = keys.to(query.dtype), values.to(query.dtype)
            outputs.append(_attend(query[:, here], keys, values, shape))
        packed = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
        return packed.transpose(0, 1)


def register() -> None:
    """Make `ATTENTION_NAME` known to transformers. Harmless when repeated."""
    # Late: what runs without transformers does not wait for it.
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, ragged_attention)


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, shape: AttentionShape
) -> torch.Tensor:
    """One sequence: `query` `[heads, new, dim]`, `keys`, `values` `[kv_heads, visible, dim]`; both end together."""
    heads, new, dim = query.shape
    if new == 1 and shape.plain:
        # A group's queries see the same keys: make them rows of one small product, K/V unrepeated.
        grouped = query.view(keys.shape[0], -1, dim)
        output = scaled_dot_product_attention(grouped[None], keys[None], values[None], scale=shape.scale)
        return output.view(heads, 1, -1)
    visible = _visible(new, keys.shape[1], shape.window, query.device)
    if not shape.plain:
        return _attend_explicitly(query, keys, values, visible, shape)
    return scaled_dot_product_attention(
        query[None],
        keys[None],
        values[None],
        attn_mask=visible,
        is_causal=visible is None and new > 1,
        scale=shape.scale,
        enable_gqa=heads != keys.shape[0],
    )[0]


def _visible(new: int, total: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Boolean `[new, total]`, true where a query may look; None when plain causal attention says the same."""
    if new == total and (window is None or total <= window):
        return None
    query_position = torch.arange(total - new, total, device=device)[:, None]
    key_position = torch.arange(total, device=device)[None, :]
    visible = key_position <= query_position
    if window is not None:
        visible &= key_position > query_position - window
    return visible


def _attend_explicitly(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    visible: torch.Tensor | None,
    shape: AttentionShape,
) -> torch.Tensor:
    """The product written out, for what no fused kernel takes: soft-capped scores and attention sinks."""
    groups = query.shape[0] // keys.shape[0]
    new, total = query.shape[1], keys.shape[1]
    grouped = query.unflatten(0, (keys.shape[0], groups))  # [kv_heads, groups, new, dim]
    scores = torch.matmul(grouped, keys[:, None].transpose(-1, -2)) * shape.scale
    if shape.softcap is not None:
        scores = torch.tanh(scores / shape.softcap) * shape.softcap
    if visible is None:
        visible = torch.ones(new, total, dtype=torch.bool, device=query.device).tril()
    scores = scores.float().masked_fill(~visible, -torch.inf)
    if shape.sinks is not None:
        sinks = shape.sinks.float().view(keys.shape[0], groups, 1, 1).expand(-1, -1, new, 1)
        weights = torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return torch.matmul(weights.to(values.dtype), values[:, None]).flatten(0, 1)
