"""Low-bit layers of torch's own operators, for a CPU without our native library.

Their rules are torch's: 8 bits with one scale for each output; 4 bits in groups of 32 inputs with scale and zero point.
Embedding and output head are at 8 bits. Weights are kept in memory only.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from llm_local.kernels.facts import WeightFacts

__all__ = ["StockEmbedding", "StockInt4Linear", "StockInt8Linear", "quantize_rows"]

_GROUP: Final = 32
_TILE: Final = 64


def quantize_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`[rows, cols]` as int8 and float32 scales `[rows]`: the nearest of 255 steps of max/127.

    The int8 matrix is padded with zeros to whole tiles: torch's operator reads past the end of others (2.13).
    """
    rows, cols = weight.shape
    quants = torch.zeros(-(-rows // _TILE) * _TILE, -(-cols // _TILE) * _TILE, dtype=torch.int8)
    scales = torch.empty(rows)
    for begin in range(0, rows, 1024):  # never the whole matrix as float32
        piece = weight[begin : begin + 1024].float()
        scale = piece.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        quants[begin : begin + len(piece), :cols] = (piece / scale[:, None]).round_()
        scales[begin : begin + len(piece)] = scale
    return quants, scales


class _StockLinear(nn.Module):
    """What both have in common. `weight` has the shape and number format that others look at, and no numbers."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.out_features, self.in_features = linear.out_features, linear.in_features
        self.num_weights = self.out_features * self.in_features
        self.bias = (
            None if linear.bias is None else nn.Parameter(linear.bias.detach().float(), requires_grad=False)
        )

    @property
    def weight(self) -> WeightFacts:
        """Shape and number format, without the numbers."""
        return WeightFacts(torch.Size((self.out_features, self.in_features)))

    def _finish(self, product: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        y = product if self.bias is None else product + self.bias
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)


class StockInt8Linear(_StockLinear):
    """y = x W^T + b, W at 8 bits with one scale for each output. Inputs become bfloat16, where torch is fast."""

    quants: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear, packed: tuple[torch.Tensor, torch.Tensor] | None = None) -> None:
        super().__init__(linear)
        quants, scales = quantize_rows(linear.weight.detach()) if packed is None else packed
        self.register_buffer("quants", quants, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("ones", torch.ones(len(quants), dtype=torch.bfloat16), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., in_features]` to `[..., out_features]`."""
        tokens = x.reshape(-1, self.in_features).to(torch.bfloat16)
        tokens = nn.functional.pad(tokens, (0, -self.in_features % _TILE))
        product = torch.ops.aten._weight_int8pack_mm(tokens, self.quants, self.ones)
        return self._finish(product.float()[:, : self.out_features] * self.scales, x)


class StockInt4Linear(_StockLinear):
    """y = x W^T + b, W at 4 bits in groups of 32 inputs; both are padded to whole tiles with zeros."""

    packed: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        weight = linear.weight.detach().float()
        weight = nn.functional.pad(weight, (0, -self.in_features % _TILE, 0, -self.out_features % _TILE))
        groups = weight.view(len(weight), -1, _GROUP)
        low, high = groups.amin(-1), groups.amax(-1)
        scale = ((high - low) / 15).to(torch.bfloat16)
        middle = (low + 8 * scale.float()).to(torch.bfloat16)  # what quant 8 stands for
        step = scale.float().clamp_min(torch.finfo(torch.float32).tiny)[..., None]
        quants = ((groups - middle.float()[..., None]) / step + 8).round_().clamp_(0, 15).to(torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(quants.view(len(weight), -1), 1)
        self.register_buffer("packed", packed, persistent=False)
        self.register_buffer("scales", torch.stack([scale.T, middle.T], -1).contiguous(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., in_features]` to `[..., out_features]`."""
        tokens = x.reshape(-1, self.in_features).to(torch.bfloat16)
        tokens = nn.functional.pad(tokens, (0, -self.in_features % _TILE))
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(tokens, self.packed, _GROUP, self.scales)
        return self._finish(product.float()[:, : self.out_features], x)


class StockEmbedding(nn.Module):
    """Rows of an 8-bit table as float32, times `scale`."""

    quants: torch.Tensor
    scales: torch.Tensor

    def __init__(
        self, table: nn.Embedding, packed: tuple[torch.Tensor, torch.Tensor], scale: float = 1.0
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim
        self.num_weights = self.num_embeddings * self.embedding_dim
        self.scale = scale
        self.register_buffer("quants", packed[0], persistent=False)
        self.register_buffer("scales", packed[1], persistent=False)

    @property
    def weight(self) -> WeightFacts:
        """Shape and number format, without the numbers."""
        return WeightFacts(torch.Size((self.num_embeddings, self.embedding_dim)))

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """`[...]` ids to `[..., embedding_dim]`."""
        quants = self.quants[token_ids][..., : self.embedding_dim]
        return quants.float() * (self.scales[token_ids] * self.scale)[..., None]
