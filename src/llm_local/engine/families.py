"""Which decoders the native step runs, and where each keeps its parts: a row per `model_type`, and no code.

Paths are attributes: of a layer, unless a comment says of what. An empty path: there is no such part. A row is enough
for an architecture that is RMS norms, rotary attention and a gated feed-forward part in this order; what else a model
has is noticed (a module that no path names), and it runs through transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of decoder differs from Llama, whose values are the defaults.

    - `qkv`, `gate_up`: one path for each matrix, or a single one whose rows are all of them, in this order.
    - `norm_offset`: what is added to every norm's weight.
    - `norm_whole_row`: query and key norms run over all heads together, not over each.
    - `rotates`: path of a flag that says whether this layer rotates.
    - `rope_by_layer_type`: the rotary module takes the type of the layer.
    - `rope_interleaved`: neighbors are rotated with each other, not halves.
    - `embedding_scale` (of the decoder), `residual_scale`, `logit_divisor` and `logit_softcap` (of the configuration):
      factors; `softcap`: of attention scores. An embedding that scales itself needs no row.
    """

    input_norm: str = "input_layernorm"
    attention_out_norm: str = ""
    mlp_norm: str = "post_attention_layernorm"
    mlp_out_norm: str = ""
    query_norm: str = ""
    key_norm: str = ""
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    output: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    activation: str = "mlp.act_fn"
    down: str = "mlp.down_proj"
    norm_offset: float = 0.0
    norm_whole_row: bool = False
    rotates: str = ""
    rope_by_layer_type: bool = False
    rope_interleaved: bool = False
    embedding_scale: str = ""
    residual_scale: str = ""
    logit_divisor: str = ""
    logit_softcap: str = ""
    softcap: str = ""


_LLAMA: Final = Family()
_NORMED_HEADS: Final = Family(query_norm="self_attn.q_norm", key_norm="self_attn.k_norm")
_FUSED: Final = Family(gate_up=("mlp.gate_up_proj",), activation="mlp.activation_fn")
_GLM: Final = replace(_FUSED, rope_interleaved=True)
_OLMO2: Final = replace(
    _NORMED_HEADS,
    input_norm="",
    attention_out_norm="post_attention_layernorm",
    mlp_norm="",
    mlp_out_norm="post_feedforward_layernorm",
    norm_whole_row=True,
)
_GEMMA: Final = Family(norm_offset=1.0)
_GEMMA2: Final = replace(
    _GEMMA,
    attention_out_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_out_norm="post_feedforward_layernorm",
    logit_softcap="final_logit_softcapping",
    softcap="self_attn.attn_logit_softcapping",
)

FAMILIES: Final[Mapping[str, Family]] = MappingProxyType(
    {
        "ernie4_5": Family(rope_interleaved=True),
        "gemma": _GEMMA,
        "gemma2": _GEMMA2,
        "gemma3_text": replace(
            _GEMMA2,
            query_norm="self_attn.q_norm",
            key_norm="self_attn.k_norm",
            rope_by_layer_type=True,
            softcap="",
        ),
        "glm": _GLM,
        "glm4": replace(
            _GLM, attention_out_norm="post_self_attn_layernorm", mlp_out_norm="post_mlp_layernorm"
        ),
        "granite": Family(
            embedding_scale="embedding_multiplier",
            residual_scale="residual_multiplier",
            logit_divisor="logits_scaling",
        ),
        "helium": Family(rope_interleaved=True),
        "llama": _LLAMA,
        "ministral": _LLAMA,
        "mistral": _LLAMA,
        "olmo2": _OLMO2,
        "olmo3": replace(_OLMO2, rope_by_layer_type=True),
        "phi3": replace(_FUSED, qkv=("self_attn.qkv_proj",)),
        "qwen2": _LLAMA,
        "qwen3": _NORMED_HEADS,
        "seed_oss": _LLAMA,
        "smollm3": Family(rotates="self_attn.use_rope"),
    }
)
