"""Tiny models as directories, as people have them on their disks."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tiny_models import END_TOKEN, VOCAB_SIZE, tiny_model

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, with the ids of `tiny_models`: 0 pad, 1 start, 2 end, then bytes as far as there is room."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = ["<pad>", "<s>", "</s>", *alphabet][:VOCAB_SIZE]
    inner = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE
    )


def save_checkpoint(
    folder: Path,
    model_type: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    shard_size: str = "50MB",
    tokenizer: bool = True,
) -> Path:
    """Write one in the layout of the hub."""
    model = tiny_model(model_type)
    try:
        model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    finally:
        model.to(torch.float32)
    if tokenizer:
        tiny_tokenizer().save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: object) -> None:
    """Set top-level keys; None removes one."""
    found = json.loads(path.read_text()) if path.exists() else {}
    found |= changes
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def safetensors_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


__all__ = [
    "END_TOKEN",
    "TEMPLATE",
    "VOCAB_SIZE",
    "edit_json",
    "safetensors_bytes",
    "save_checkpoint",
    "tiny_tokenizer",
]
