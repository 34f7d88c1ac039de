"""Under which name a model's packed weights are kept, and asking for them before anyone can use them.

No torch here: the name is known while it still has to be imported.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from llm_local.home import cache_home
from llm_local.kernels import layout
from llm_local.loaders.safetensors import Weights
from llm_local.specs import ModelSpec, PackedBits

__all__ = ["file_identity", "pack_key", "packed_folder", "read_ahead"]

# What decides how a model is packed: a change of any of these files makes all packed files strangers.
_RULES: Final = (
    Path(__file__).with_name("packing.py"),
    *sorted((Path(layout.__file__).parent / "native").glob("*.h")),
)


def packed_folder() -> Path:
    """Where packed weights are kept."""
    return cache_home() / "packed"


def pack_key(config: Mapping[str, Any], weights: Weights, bits: PackedBits) -> str:
    """The name of the packed form of a model: made of its files as they are now, its configuration, and our code.

    A file is what the hub's digest says, or else this inode; with its size and its times, which no edit leaves alone.
    """
    files = [file_identity(path) for path in weights.files]
    versions = (_rules_digest(), layout.ABI_VERSION, importlib.metadata.version("transformers"))
    text = json.dumps([versions, bits, files, config], sort_keys=True, default=str)
    return f"{bits}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


@functools.cache
def _rules_digest() -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in _RULES)).hexdigest()


def read_ahead(spec: ModelSpec, config: Mapping[str, Any], weights: Weights) -> None:
    """Let the system bring a model's weights from the disk meanwhile: packed ones where there are any, else its own.

    A guess about the number of bits, which costs nothing when it is wrong.
    """
    bits: PackedBits = "int4" if spec.quantization == "int4" else "int8"
    packed = packed_folder() / f"{pack_key(config, weights, bits)}.pack"
    files = (packed,) if spec.quantization != "none" and packed.is_file() else weights.files
    # in a thread: the call waits where the disk has more to do than it can remember
    threading.Thread(target=_ask_for, args=(files,), daemon=True).start()


def _ask_for(files: Iterable[Path]) -> None:
    for path in files:
        with suppress(OSError, AttributeError), open(path, "rb") as file:  # not every platform can be asked
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def file_identity(path: Path) -> list[Any]:
    """What says that a file is still the one it was, without reading it."""
    found = path.stat()
    blob = path.resolve()
    if path.is_symlink() and blob.parent.name == "blobs":  # named by its contents
        return [blob.name, found.st_size, found.st_mtime_ns]
    return [path.name, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
