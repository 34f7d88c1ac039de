"""The shape of the starter model and its files in the layout of Hugging Face."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from .tokenizer import CONTEXT, END, START, VOCABULARY


def make_config(width: int = 256, layers: int = 6) -> Qwen3Config:
    """A small Qwen3. Widths are multiples of 256 so that every quantized format can hold the matrices."""
    return Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 128),
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=2,
        dtype="bfloat16",
    )


def make_model(config: Qwen3Config, seed: int) -> Qwen3ForCausalLM:
    """A fresh model in float32. Output projections start at zero, so every layer starts as the identity."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).float()
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(parameter)
    return model


def export(
    weights: dict[str, torch.Tensor], config: Qwen3Config, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write the model directory: weights in bfloat16, configuration, tokenizer, chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # In place of what transformers writes: without traces of this machine, and for its older versions too.
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.eos_token,
        "pad_token": tokenizer.pad_token,
        "additional_special_tokens": [START, END],
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n")
    generation = {
        "do_sample": False,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tensors = {
        name: one.to(torch.bfloat16).contiguous() for name, one in weights.items() if name != "lm_head.weight"
    }
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # the library writes it for the owner alone
    os.replace(partial, folder / "model.safetensors")
