"""Tiny random embedding models as directories, and what plain transformers and a few lines by hand make of them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import AutoConfig

from text import small_tokenizers

SIZE = 32
PLACES = 64

_ENCODER = {
    "vocab_size": 430,
    "hidden_size": SIZE,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": PLACES,
}
# What each architecture needs beside the common shape. MiniLM is BERT with more layers of fewer numbers.
SHAPES: dict[str, dict[str, Any]] = {
    "bert": {},
    "minilm": {"num_hidden_layers": 6, "intermediate_size": 128},
    "roberta": {"max_position_embeddings": PLACES + 2, "pad_token_id": 1, "type_vocab_size": 1},
    "xlm-roberta": {"max_position_embeddings": PLACES + 2, "pad_token_id": 1, "type_vocab_size": 1},
    "albert": {"embedding_size": 16},
    "distilbert": {"dim": SIZE, "n_layers": 3, "n_heads": 4, "hidden_dim": 48},
    "mpnet": {"max_position_embeddings": PLACES + 2, "pad_token_id": 1},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 0},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 16, "use_bidirectional_attention": True},
}
_TYPES = {"minilm": "bert"}

TEXTS = (
    "Hello world",
    "the quick brown fox jumps over the lazy dog",
    "a",
    "It's the user's own. I don't know how are you?",
    "the lazy dog jumps over the quick brown fox and over the user's own dog",
    "你好世界 naïve café",
    "world",
)


@functools.cache  # training breaks ties anew each time
def word_piece() -> PreTrainedTokenizerFast:
    """BERT's: [CLS] before and [SEP] behind a text, and a padding token."""
    tokenizer = small_tokenizers.word_piece()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    return tokenizer


@functools.cache  # training breaks ties anew each time
def roberta_bpe() -> PreTrainedTokenizerFast:
    """RoBERTa's: <s> before and </s> behind a text, padding has id 1, spaces belong to words."""
    inner = json.loads(small_tokenizers.byte_level().backend_tokenizer.to_str())
    vocab = inner["model"]["vocab"]
    wanted = {"<s>": 0, "<pad>": 1, "</s>": 2}
    kept = [token for token in vocab if token not in small_tokenizers.SPECIAL]
    inner["model"]["vocab"] = wanted | {token: index + 3 for index, token in enumerate(kept)}
    inner["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(inner))
    tokenizer.add_special_tokens(list(wanted))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
    )


@functools.cache  # training breaks ties anew each time
def decoder_bpe() -> PreTrainedTokenizerFast:
    """Qwen's, as its embedding models have it: an end token behind each text."""
    tokenizer = small_tokenizers.byte_level()
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    return tokenizer


_TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "roberta": roberta_bpe,
    "xlm-roberta": roberta_bpe,
    "mpnet": roberta_bpe,
    "qwen3": decoder_bpe,
    "gemma3_text": decoder_bpe,
}


def save_embedder(
    folder: Path, kind: str = "bert", *, dtype: torch.dtype = torch.float32, **changes: Any
) -> Path:
    """Write a model that says nothing about pooling."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(_TYPES.get(kind, kind), **{**_ENCODER, **SHAPES[kind], **changes})
    model = AutoModel.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.05))
    model.to(dtype).save_pretrained(folder)
    _TOKENIZERS.get(kind, word_piece)().save_pretrained(folder)
    return folder


def write_json(path: Path, value: object) -> None:
    """A JSON file, and its folder where needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def declare(folder: Path, pooling: dict[str, Any], *names: str) -> Path:
    """Say how texts become vectors, as Sentence Transformers does: the names of modules behind the pooling."""
    entries = [("", "Transformer"), ("1_Pooling", "Pooling")]
    entries += [(f"{number}_{name}", name) for number, name in enumerate(names, 2)]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{name}"}
        for index, (path, name) in enumerate(entries)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": SIZE} | pooling)
    return folder


def write_dense(folder: Path, size: int, out: int, **config: Any) -> dict[str, torch.Tensor]:
    """A projection with random weights, which are returned."""
    torch.manual_seed(8)
    weights = {"linear.weight": torch.randn(out, size) / size**0.5, "linear.bias": torch.randn(out) / 10}
    if config.get("bias") is False:
        del weights["linear.bias"]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors")
    write_json(folder / "config.json", {"in_features": size, "out_features": out} | config)
    return weights


def reference_states(folder: Path, texts: Sequence[str], load: Any = AutoModel) -> list[torch.Tensor]:
    """The hidden states [tokens, size] of each text alone, by plain transformers in float32."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = load.from_pretrained(folder, dtype=torch.float32).eval()
    encoded = [tokenizer(text, return_tensors="pt", return_token_type_ids=False) for text in texts]
    with torch.no_grad():
        return [model(**one).last_hidden_state[0] for one in encoded]


def reference(
    folder: Path,
    texts: Sequence[str],
    by_hand: Callable[[torch.Tensor], torch.Tensor],
    *,
    normalize: bool = False,
    load: Any = AutoModel,
) -> np.ndarray:
    """The vectors of `texts`, each alone: `by_hand` makes one of a text's hidden states."""
    vectors = torch.stack([by_hand(states) for states in reference_states(folder, texts, load)])
    if normalize:
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return vectors.numpy()
