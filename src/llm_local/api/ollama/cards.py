"""Models as Ollama lists and shows them. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from llm_local.api.ollama.durations import FOREVER, timestamp
from llm_local.api.ollama.names import tagged_name
from llm_local.service import KnownModel, Loaded, ShownModel

if TYPE_CHECKING:
    from llm_local.loaders.card import ModelCard

__all__ = ["by_name", "capabilities_of", "details_of", "listed_model", "running_model", "shown_model"]

_PARAMETERS: Final[Mapping[str, str]] = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repeat_penalty",
}
_PURPOSE: Final = re.compile(r"(?<=.)(?:For[A-Z]\w*|LMHeadModel|Model)$", re.ASCII)
_SIZES: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))


def listed_model(model: KnownModel) -> dict[str, Any]:
    """A model on this machine."""
    return {
        "name": tagged_name(model.name),
        "model": tagged_name(model.name),
        "modified_at": timestamp(round(model.modified * 1e9)),
        "size": model.num_bytes,
        "digest": _digest_of(model),
        "details": details_of(model),
        "capabilities": capabilities_of(model),
    }


def running_model(loaded: Loaded, known: KnownModel | None, now_ns: int) -> dict[str, Any]:
    """A model in memory. `size_vram` is what of it lies on an accelerator."""
    size = loaded.weight_bytes + loaded.kv_bytes
    stays_s = loaded.expires_in_s
    return {
        "name": tagged_name(loaded.name),
        "model": tagged_name(loaded.name),
        "size": size,
        "digest": _digest_of(known) if known is not None else "",
        "details": details_of(known) if known is not None else {},
        "expires_at": FOREVER if stays_s is None else timestamp(now_ns + round(stays_s * 1e9)),
        "size_vram": 0 if loaded.info.device.startswith("cpu") else size,
        "context_length": loaded.info.context_length,
    }


def by_name(loaded: Iterable[Loaded]) -> list[Loaded]:
    """Models in memory, each name once: one that writes and embeds lies there twice. The longest-lived come first."""
    found: dict[str, Loaded] = {}
    for one in loaded:
        other = found.get(one.name)
        if other is not None:
            ends = (one.expires_in_s, other.expires_in_s)
            one = dataclasses.replace(
                one,
                weight_bytes=one.weight_bytes + other.weight_bytes,
                kv_bytes=one.kv_bytes + other.kv_bytes,
                expires_in_s=None if None in ends else max(end for end in ends if end is not None),
            )
        found[one.name] = one
    return sorted(
        found.values(), key=lambda one: -math.inf if one.expires_in_s is None else -one.expires_in_s
    )


def shown_model(shown: ShownModel) -> dict[str, Any]:
    """All that a model's files tell. `model_info` is where clients look for the context length."""
    known, card = shown.known, shown.card
    parameters = [] if card is None else _parameter_lines(card)
    found = {
        "license": "" if card is None else card.license,
        "modelfile": "\n".join([f"FROM {known.name}", *(f"PARAMETER {line}" for line in parameters)]),
        "parameters": "\n".join(parameters),
        "template": "" if card is None else card.chat_template,
        "details": details_of(known, card),
        "model_info": _model_info(known, card),
        "capabilities": capabilities_of(known),
        "modified_at": timestamp(round(known.modified * 1e9)),
    }
    return {name: value for name, value in found.items() if name != "license" or value}


def details_of(model: KnownModel, card: ModelCard | None = None) -> dict[str, Any]:
    """The `details` of a model."""
    family = _family_of(model)
    quantized = card is not None and card.quantization not in ("", "none")
    details: dict[str, Any] = {
        "parent_model": "",
        "format": "gguf" if ".gguf" in model.name.lower() or model.kind == "file" else "safetensors",
        "family": family,
        "families": [family] if family else None,
        "parameter_size": _size_text(model.num_parameters),
        "quantization_level": card.quantization if card is not None and quantized else model.dtype,
    }
    if model.context_length is not None:
        details["context_length"] = _window(model)
    if card is not None and card.shape.hidden_size is not None:
        details["embedding_length"] = card.shape.hidden_size
    return details


def _model_info(model: KnownModel, card: ModelCard | None) -> dict[str, Any]:
    """Sizes under the keys that clients look for; what the files do not tell is left out."""
    architecture = _family_of(model) or "unknown"
    found: dict[str, Any] = {
        "general.architecture": architecture,
        "general.basename": model.name,
        "general.parameter_count": model.num_parameters,
        f"{architecture}.context_length": _window(model),
    }
    if card is not None:
        found |= {
            f"{architecture}.embedding_length": card.shape.hidden_size,
            f"{architecture}.block_count": card.shape.num_layers,
            f"{architecture}.attention.head_count": card.shape.num_attention_heads,
            f"{architecture}.attention.head_count_kv": card.shape.num_key_value_heads,
            f"{architecture}.vocab_size": card.shape.vocab_size,
        }
    return {name: value for name, value in found.items() if value is not None}


def _family_of(model: KnownModel) -> str:
    """The architecture without what it is made for: `LlamaForCausalLM` is a `llama`."""
    return _PURPOSE.sub("", model.architecture).lower()


def capabilities_of(model: KnownModel) -> list[str]:
    """Ollama's words. Any model embeds, but only one that does not write is called an embedding model there."""
    able = model.capabilities
    if not able & {"chat", "completion"}:
        return ["embedding"] if "embedding" in able else []
    return ["completion", *(name for name in ("tools", "thinking") if name in able)]


def _digest_of(model: KnownModel) -> str:
    """64 digits that change when the model does. They are made of its commit, or of size and time of its files."""
    state = model.commit or f"{model.kind} {model.num_bytes} {model.modified}"
    return hashlib.sha256(state.encode()).hexdigest()


def _window(model: KnownModel) -> int | None:
    """The context length that holds: of a model in memory the one it was loaded with."""
    return model.context_length if model.loaded is None else model.loaded.info.context_length


def _parameter_lines(card: ModelCard) -> list[str]:
    given = card.generation_defaults
    return [f"{ours:<30} {given[name]}" for name, ours in _PARAMETERS.items() if given.get(name) is not None]


def _size_text(count: int | None) -> str:
    if count is None:
        return ""
    for size, letter in _SIZES:
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
