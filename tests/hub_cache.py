"""Models in the hub's cache, made up on the disk: contents under their digests, and names that link to them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from llm_local.store.snapshots import cache_folder
from tiny_checkpoints import safetensors_bytes

COMMIT = "a" * 40
OTHER_COMMIT = "b" * 40
_LARGE = 1 << 10  # from here on contents lie under a sha256, as large files of the hub do


def weights_bytes(*, seed: int = 0, num_numbers: int = 4096) -> bytes:
    """One float32 matrix."""
    data = bytes((seed + index * 7) % 251 for index in range(4 * num_numbers))
    header = {"w.weight": {"dtype": "F32", "shape": [num_numbers], "data_offsets": [0, len(data)]}}
    return safetensors_bytes(header, data)


def model_files(*, seed: int = 0, **config: object) -> dict[str, bytes]:
    """The files of a small model. It cannot be run, but everything about it can be told."""
    described = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "max_position_embeddings": 4096,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "hidden_size": 64,
        "vocab_size": 1000,
        "dtype": "float32",
        **config,
    }
    return {
        "config.json": json.dumps(described).encode(),
        "generation_config.json": b'{"temperature": 0.7, "top_p": 0.9, "do_sample": true}',
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b'{"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}',
        "model.safetensors": weights_bytes(seed=seed),
    }


def key_of(data: bytes) -> str:
    """The name of a blob: a sha256, or what git calls it."""
    if len(data) >= _LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def add_model(
    ref: str,
    files: Mapping[str, bytes] | None = None,
    *,
    commit: str = COMMIT,
    revision: str | None = "main",
) -> Path:
    """Put a model into the cache, in the layout that all tools of the hub share; returns its snapshot."""
    root = cache_folder() / ("models--" + ref.replace("/", "--"))
    snapshot, blobs = root / "snapshots" / commit, root / "blobs"
    for name, data in (model_files() if files is None else files).items():
        blob, link = blobs / key_of(data), snapshot / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if revision is not None:
        path = root / "refs" / revision
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
    return snapshot


def everything_under(folder: Path) -> dict[str, bytes]:
    """All files and links below a folder, with what they hold or lead to, for comparing before and after."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path.relative_to(folder).as_posix()] = os.readlink(path).encode()
        elif path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found
