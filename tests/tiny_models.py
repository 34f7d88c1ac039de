"""Tiny random models of real architectures, different enough from each other and from nothing."""

from __future__ import annotations

import functools

import torch
from transformers import AutoConfig, AutoModelForCausalLM

# Operators this small run slower on two threads than on one.
torch.set_num_threads(1)

VOCAB_SIZE = 199
CONTEXT_LENGTH = 1024
END_TOKEN = 2

_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": END_TOKEN,
    "pad_token_id": 0,
}

_EXPERTS = {
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
_SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}

# What an architecture needs beside the common shape; None takes a key of the common shape away.
# Windows are shorter than the prompts of the tests.
PACKED = {
    "cohere": {"logit_scale": 1.0},
    "deepseek_v3": {
        **_EXPERTS,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 12,
        "first_k_dense_replace": 1,
    },
    "gemma": {"head_dim": 16},
    "gemma2": {**_SLIDING, "head_dim": 16, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16},
    "gemma3_text": {**_SLIDING, "head_dim": 16, "query_pre_attn_scalar": 16},
    "glm": {"head_dim": 16},
    "gpt2": {
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": CONTEXT_LENGTH,
        "num_key_value_heads": None,
    },
    "gpt_neox": {"num_key_value_heads": None},
    "gpt_oss": {
        **_EXPERTS,
        **_SLIDING,
        "head_dim": 16,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "granite": {
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.3,
        "logits_scaling": 0.5,
    },
    "granitemoe": _EXPERTS,
    "llama": {},
    "mistral": {"sliding_window": 16},
    "mixtral": _EXPERTS,
    "olmo2": {},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64, "num_key_value_heads": None},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": _EXPERTS,
    "qwen3": {"head_dim": 32},
    "qwen3_moe": {**_EXPERTS, "head_dim": 32},
    "smollm3": {},
    "starcoder2": {"sliding_window": 16},
}

# Architectures that are more than attention, or whose attention is their own.
UNIVERSAL = {
    "bloom": {"n_layer": 3, "n_head": 4, "num_key_value_heads": None},
    "falcon": {"alibi": True},
    "gptj": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT_LENGTH, "rotary_dim": 8},
    "granitemoehybrid": {
        **_EXPERTS,
        "layer_types": ["mamba", "attention", "mamba"],
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_n_groups": 1,
        "mamba_d_state": 16,
        "shared_intermediate_size": 64,
    },
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba": {},
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2},
    "qwen3_5_text": {
        "layer_types": ["linear_attention", "full_attention", "linear_attention"],
        "head_dim": 32,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
    "stablelm": {},
}

ARCHITECTURES = PACKED | UNIVERSAL


@functools.cache
def tiny_model(model_type: str):
    """The architecture in float32 with its plain attention, always the same weights. Do not modify it."""
    torch.manual_seed(20)
    model = AutoModelForCausalLM.from_config(tiny_config(model_type)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # matrices wide enough that every token matters, norms and biases near but not at their rest values
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1))
    return model.requires_grad_(False)


def tiny_config(model_type: str):
    """Its configuration."""
    shape = {**_COMMON, **ARCHITECTURES[model_type]}
    return AutoConfig.for_model(
        model_type, **{key: value for key, value in shape.items() if value is not None}
    )


def random_prompt(length: int, seed: int = 0) -> tuple[int, ...]:
    """Ids without the special ones."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCAB_SIZE, (length,), generator=generator).tolist())


def reference_ids(model, prompt_ids, max_new_tokens: int) -> list[int]:
    """Greedy ids of transformers' own `generate`, with the model's plain attention."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        ids = torch.tensor([prompt_ids])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
        )
    finally:
        model.set_attn_implementation(implementation)
    return output[0, len(prompt_ids) :].tolist()
