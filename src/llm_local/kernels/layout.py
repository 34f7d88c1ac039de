"""The structs, numbers and functions of native/abi.h, one by one, for ctypes.

`STRUCTS` is in the order of `llm_struct_bytes`, by which the library says whether both sides still agree.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_size_t, c_void_p
from enum import IntEnum
from typing import Any, ClassVar, Final

__all__ = [
    "ABI_VERSION",
    "PROTOTYPES",
    "STRUCTS",
    "LlmActivation",
    "LlmAttention",
    "LlmBatch",
    "LlmDtype",
    "LlmKV",
    "LlmLayer",
    "LlmLinear",
    "LlmModel",
    "LlmNorm",
    "LlmRope",
    "LlmSegment",
    "LlmStatus",
    "LlmWeightKind",
]

ABI_VERSION: Final = 2

_Fields = list[tuple[str, Any]]


class LlmWeightKind(IntEnum):
    """How the numbers of a weight matrix lie in memory."""

    F32 = 0
    BF16 = 1
    Q8 = 2
    Q4 = 3


class LlmDtype(IntEnum):
    """Number formats of activations, keys and values, and sources of packing."""

    F32 = 0
    BF16 = 1
    F16 = 2


class LlmStatus(IntEnum):
    """What a function of the library returns."""

    OK = 0
    NOT_FINITE = 1
    OUT_OF_MEMORY = 2
    BAD_ARGUMENT = 3


class LlmActivation(IntEnum):
    """The nonlinearity of a feed-forward part."""

    SILU = 0
    GELU_TANH = 1
    GELU = 2
    RELU = 3


class LlmLinear(ctypes.Structure):
    """y = x W^T + b. `weights` null: there is no such matrix."""

    _fields_: ClassVar[_Fields] = [
        ("kind", c_int32),
        ("rows", c_int32),
        ("cols", c_int32),
        ("reserved", c_int32),
        ("weights", c_void_p),
        ("bias", c_void_p),
    ]


class LlmNorm(ctypes.Structure):
    """Root-mean-square norm. `weight` null: there is no such norm."""

    _fields_: ClassVar[_Fields] = [("weight", c_void_p), ("eps", c_float), ("reserved", c_int32)]


class LlmRope(ctypes.Structure):
    """Tables of a rotary embedding, `[positions, dim]` each."""

    _fields_: ClassVar[_Fields] = [
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("dim", c_int32),
        ("interleaved", c_int32),
    ]


class LlmLayer(ctypes.Structure):
    """One decoder layer."""

    _fields_: ClassVar[_Fields] = [
        ("input_norm", LlmNorm),
        ("attention_out_norm", LlmNorm),
        ("mlp_norm", LlmNorm),
        ("mlp_out_norm", LlmNorm),
        ("query_norm", LlmNorm),
        ("key_norm", LlmNorm),
        ("query", LlmLinear),
        ("key", LlmLinear),
        ("value", LlmLinear),
        ("output", LlmLinear),
        ("gate", LlmLinear),
        ("up", LlmLinear),
        ("down", LlmLinear),
        ("sinks", c_void_p),
        ("rope", c_int32),
        ("window", c_int32),
        ("attention_scale", c_float),
        ("softcap", c_float),
    ]


class LlmModel(ctypes.Structure):
    """A Llama-like decoder."""

    _fields_: ClassVar[_Fields] = [
        ("num_layers", c_int32),
        ("hidden", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("intermediate", c_int32),
        ("vocab", c_int32),
        ("num_ropes", c_int32),
        ("activation", c_int32),
        ("norm_whole_row", c_int32),
        ("kv_dtype", c_int32),
        ("embedding_scale", c_float),
        ("residual_scale", c_float),
        ("logit_scale", c_float),
        ("logit_softcap", c_float),
        ("embedding", LlmLinear),
        ("final_norm", LlmNorm),
        ("head", LlmLinear),
        ("layers", POINTER(LlmLayer)),
        ("ropes", POINTER(LlmRope)),
    ]


class LlmKV(ctypes.Structure):
    """One layer of one sequence: `[kv_heads, capacity, head_dim]` keys and values."""

    _fields_: ClassVar[_Fields] = [
        ("keys", c_void_p),
        ("values", c_void_p),
        ("capacity", c_int64),
        ("start", c_int64),
    ]


class LlmSegment(ctypes.Structure):
    """Tokens of one sequence in the packed row."""

    _fields_: ClassVar[_Fields] = [
        ("kv", POINTER(LlmKV)),
        ("offset", c_int32),
        ("length", c_int32),
        ("past", c_int64),
    ]


class LlmBatch(ctypes.Structure):
    """One forward pass: what goes in, and where the logits go.

    A call computes `num_layers` from `first_layer` on (0: all that are left).
    """

    _fields_: ClassVar[_Fields] = [
        ("token_ids", POINTER(c_int32)),
        ("segments", POINTER(LlmSegment)),
        ("kept", POINTER(c_int32)),
        ("logits", c_void_p),
        ("num_tokens", c_int32),
        ("num_segments", c_int32),
        ("num_kept", c_int32),
        ("first_layer", c_int32),
        ("num_layers", c_int32),
        ("reserved", c_int32),
    ]


class LlmAttention(ctypes.Structure):
    """One layer's attention over segments."""

    _fields_: ClassVar[_Fields] = [
        ("query", c_void_p),
        ("key", c_void_p),
        ("value", c_void_p),
        ("output", c_void_p),
        ("query_token_stride", c_int64),
        ("query_head_stride", c_int64),
        ("key_token_stride", c_int64),
        ("key_head_stride", c_int64),
        ("value_token_stride", c_int64),
        ("value_head_stride", c_int64),
        ("dtype", c_int32),
        ("kv_dtype", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("window", c_int32),
        ("scale", c_float),
        ("softcap", c_float),
        ("sinks", c_void_p),
    ]


STRUCTS: Final[tuple[type[ctypes.Structure], ...]] = (
    LlmLinear,
    LlmNorm,
    LlmRope,
    LlmLayer,
    LlmModel,
    LlmKV,
    LlmSegment,
    LlmBatch,
    LlmAttention,
)

# Each function of abi.h: what it returns, and what it takes.
PROTOTYPES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "llm_abi_version": (c_int32, []),
    "llm_struct_bytes": (c_size_t, [c_int32]),
    "llm_use_openmp": (None, [c_void_p, c_void_p, c_void_p]),
    "llm_variants": (c_char_p, []),
    "llm_variant": (c_char_p, []),
    "llm_use_variant": (c_int32, [c_char_p]),
    "llm_packed_bytes": (c_size_t, [c_int32, c_int32, c_int32]),
    "llm_pack": (c_int32, [c_int32, c_void_p, c_int32, c_int64, c_int32, c_int32, c_void_p, c_int32]),
    "llm_unpack": (None, [POINTER(LlmLinear), c_void_p, c_int32]),
    "llm_linear": (
        c_int32,
        [POINTER(LlmLinear), c_int32, c_void_p, POINTER(c_void_p), c_int32, c_int32, c_int32],
    ),
    "llm_attention": (
        c_int32,
        [POINTER(LlmAttention), POINTER(LlmSegment), c_int32, c_int32, c_int32],
    ),
    "llm_scratch_new": (c_void_p, []),
    "llm_scratch_free": (None, [c_void_p]),
    "llm_step": (c_int32, [POINTER(LlmModel), POINTER(LlmBatch), c_void_p, c_int32]),
}
