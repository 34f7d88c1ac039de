"""Attention by the native library: all segments of a row in one call, over the stores of their sequences."""

from __future__ import annotations

import ctypes
from typing import Final

import torch

from llm_local.engine.attention import AttentionShape
from llm_local.engine.kv_cache import KVLayout
from llm_local.engine.packed_row import PackedRow
from llm_local.errors import EngineError
from llm_local.kernels.layout import LlmAttention, LlmDtype, LlmSegment
from llm_local.kernels.library import Native

__all__ = ["STORED", "NativeAttention", "segment_structs"]

# The number formats of keys and values that the library reads, by torch's names.
STORED: Final = {torch.float32: LlmDtype.F32, torch.bfloat16: LlmDtype.BF16}


def segment_structs(row: PackedRow) -> ctypes.Array[LlmSegment]:
    """The segments of a row whose room is made (`PackedRow.make_room`)."""
    return (LlmSegment * len(row.segments))(
        *(LlmSegment(one.kv.rows(), one.offset, one.length, one.kv.length) for one in row.segments)
    )


class NativeAttention:
    """What `attention.Attend` asks for, for one row whose room is made."""

    def __init__(self, library: Native, row: PackedRow, layout: KVLayout) -> None:
        self._library = library
        self._segments = segment_structs(row)
        self._row = row  # whose memory the segments point to
        self._layout = layout

    @staticmethod
    def fits(layout: KVLayout) -> bool:
        """True when the library can attend to keys and values of this layout."""
        return bool(layout.windows) and layout.key_dim == layout.value_dim and layout.dtype in STORED

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: AttentionShape
    ) -> torch.Tensor:
        """Append keys and values to their sequences, then attend; see `Attend`.

        Raises:
            EngineError: the layer is not what the configuration says, or the library cannot do it.
        """
        layout = self._layout
        self._check(layer, query, key, value, shape)
        query, key, value = (one if one.stride(-1) == 1 else one.contiguous() for one in (query, key, value))
        heads, tokens, dim = query.shape
        output = query.new_empty(tokens, heads, dim)
        sinks = None if shape.sinks is None else shape.sinks.float().contiguous()
        self._library.attention(
            LlmAttention(
                query=query.data_ptr(),
                key=key.data_ptr(),
                value=value.data_ptr(),
                output=output.data_ptr(),
                query_token_stride=query.stride(1),
                query_head_stride=query.stride(0),
                key_token_stride=key.stride(1),
                key_head_stride=key.stride(0),
                value_token_stride=value.stride(1),
                value_head_stride=value.stride(0),
                dtype=STORED[query.dtype],
                kv_dtype=STORED[layout.dtype],
                heads=heads,
                kv_heads=layout.heads,
                head_dim=dim,
                window=shape.window or 0,
                scale=shape.scale,
                softcap=shape.softcap or 0.0,
                sinks=None if sinks is None else sinks.data_ptr(),
            ),
            self._segments,
            layer,
        )
        return output

    def _check(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: AttentionShape
    ) -> None:
        """The library sees addresses only: whatever it reads and writes there must be as large as it believes."""
        layout, sinks = self._layout, shape.sinks
        expected = (layout.heads, len(self._row.token_ids), layout.key_dim)
        if key.shape != expected or value.shape != expected:
            raise EngineError(
                f"Layer {layer} has keys {tuple(key.shape)}, other than its configuration says."
            )
        if query.shape[1:] != expected[1:] or query.shape[0] % layout.heads:
            raise EngineError(f"Layer {layer} has queries {tuple(query.shape)}, which do not fit its keys.")
        if query.dtype not in STORED or key.dtype != query.dtype or value.dtype != query.dtype:
            raise EngineError(
                f"Layer {layer} attends in {query.dtype}, {key.dtype} and {value.dtype}, "
                "but native kernels take one of float32 and bfloat16."
            )
        if sinks is not None and sinks.shape != query.shape[:1]:
            raise EngineError(f"Layer {layer} has {len(sinks)} sinks for {len(query)} heads.")
        if shape.window != layout.windows[layer]:
            raise EngineError(
                f"Layer {layer} has a window of {shape.window}, other than its configuration says."
            )
