"""The facts about a model that was just loaded, from the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_local.loaders.weight_count import count_weights
from llm_local.specs import ModelInfo, ModelSpec, PackedBits

__all__ = ["describe_model"]


def describe_model(
    spec: ModelSpec, folder: Path, tokenizer: Any, model: Any, window: int, bits: PackedBits = "none"
) -> ModelInfo:
    """What is known of a transformers model with a window of so many tokens; `bits` are those of its packed weights."""
    num_parameters, weight_bytes = count_weights(model)
    head = model.get_output_embeddings()
    return ModelInfo(
        ref=spec.ref,
        path=str(folder),
        architecture=type(model).__name__,
        num_parameters=num_parameters,
        weight_bytes=weight_bytes,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        context_length=window,
        vocab_size=int((model.get_input_embeddings() if head is None else head).weight.shape[0]),
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        quantization=bits,
    )
