"""Shapes of published models, as their `config.json` gives them: what speed depends on, without the weights."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = ["PUBLISHED_SHAPES"]

_QWEN2_5: Final = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}

PUBLISHED_SHAPES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "qwen2.5-0.5b": {
            **_QWEN2_5,
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "intermediate_size": 4864,
        },
        "qwen2.5-1.5b": {
            **_QWEN2_5,
            "hidden_size": 1536,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "intermediate_size": 8960,
        },
        "llama-3.2-1b": {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "intermediate_size": 8192,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500_000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
            },
            "tie_word_embeddings": True,
            "vocab_size": 128256,
        },
    }
)
"""By name; the keys and values are those of transformers' configurations. What speed does not
depend on, the special tokens above all, is left out."""
