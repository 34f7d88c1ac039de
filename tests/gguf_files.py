"""GGUF files, written by the letter of the format, right or wrong."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

Q4_K_M = 15


def text(value: str) -> bytes:
    """A string as the format has it."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, value: Any) -> bytes:
    """A key, a type and a value."""
    return text(key) + _typed(value)


def _typed(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    inner = [_typed(one) for one in value]
    kind = inner[0][:4] if inner else struct.pack("<I", 8)
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(inner)) + b"".join(one[4:] for one in inner)


def tensor(name: str, shape: Sequence[int], kind: int, offset: int) -> bytes:
    """What the header says of one tensor."""
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf_bytes(
    values: Mapping[str, Any],
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    num_tensors: int | None = None,
    num_entries: int | None = None,
) -> bytes:
    """A whole file."""
    count = len(tensors) if num_tensors is None else num_tensors
    entries = len(values) if num_entries is None else num_entries
    head = b"GGUF" + struct.pack("<IQQ", version, count, entries)
    head += b"".join(entry(key, value) for key, value in values.items()) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def small_gguf(**values: Any) -> bytes:
    """A small model: two tensors, one of them quantized."""
    described = {
        "general.architecture": "llama",
        "general.license": "apache-2.0",
        "general.file_type": Q4_K_M,
        "llama.context_length": 8192,
        "llama.block_count": 2,
        "llama.embedding_length": 256,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["<s>", "</s>", "a", "é"],
        "tokenizer.ggml.scores": [0.0, 1.0, 2.0, 3.0],
        "tokenizer.chat_template": "{{ messages }}{% if tools %}<tool_call>{% endif %}",
        **values,
    }
    tensors = [tensor("a.weight", [256, 4], 12, 0), tensor("b.weight", [8], 0, 576)]
    return gguf_bytes(described, tensors, bytes(576 + 32))
