"""What a model is by its small files, quick enough to do for every model on the disk: for lists.

Only what cannot be right at a glance counts as damage here; the loader judges all of it, and `verify` every byte.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from llm_local.errors import LocalLLMError, ModelCorrupt
from llm_local.store.names import safe_join
from llm_local.store.selection import CONFIG, INDEX, WEIGHTS
from llm_local.store.weight_index import shard_names

__all__ = [
    "Format",
    "StoredFile",
    "Summary",
    "files_under",
    "quantization_of",
    "stored_file",
    "summarize",
]

Format = Literal["safetensors", "gguf"]

_MAX_BYTES: Final = 64 << 20
_MAX_HEADER_BYTES: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a model. `size` is None where a link leads nowhere; `identity` is one for all names of a file."""

    name: str
    path: Path
    size: int | None
    modified_s: float
    identity: tuple[int, int]

    @property
    def is_hidden(self) -> bool:
        """True for what tools keep beside a model, such as the objects of git."""
        return self.name.startswith(".") or "/." in self.name


@dataclass(frozen=True, slots=True)
class Summary:
    """`architecture` is the class or family that the files name, `dtype` the number format they declare.

    `quantization` is "none", or how the weights are packed; "" says that nothing is known. `fault` says what is wrong.
    """

    format: Format
    architecture: str = ""
    model_type: str = ""
    quantization: str = ""
    dtype: str = ""
    fault: str = ""


def files_under(folder: Path) -> tuple[StoredFile, ...]:
    """All files in a folder and the folders in it, sorted by name; links to folders are not followed.

    Raises:
        OSError: the folder cannot be read.
    """
    found: list[StoredFile] = []
    pending = [(folder, "")]
    while pending:
        place, prefix = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((Path(entry.path), f"{prefix}{entry.name}/"))
                else:
                    found.append(stored_file(Path(entry.path), f"{prefix}{entry.name}"))
    return tuple(sorted(found, key=lambda file: file.name))


def stored_file(path: Path, name: str) -> StoredFile:
    """What the disk says of one file."""
    try:
        status = path.stat()
    except OSError:
        return StoredFile(name, path, None, 0.0, (0, 0))
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    return StoredFile(name, path, size, status.st_mtime, (status.st_dev, status.st_ino))


def summarize(folder: Path, gguf: Sequence[str] = ()) -> Summary:
    """The model in `folder`, or the one in the files `gguf` of it. Damage is told, not raised."""
    try:
        return _gguf_summary(folder / gguf[0]) if gguf else _safetensors_summary(folder)
    except LocalLLMError as error:
        return Summary("gguf" if gguf else "safetensors", fault=error.message.rstrip("."))
    except OSError as error:
        return Summary("gguf" if gguf else "safetensors", fault=error.strerror or str(error))


def quantization_of(config: Mapping[str, Any]) -> str:
    """How a configuration says that the weights are packed, such as "gptq 4-bit"; "none" where it does not."""
    declared = config.get("quantization_config")
    if not declared:
        return "none"
    if not isinstance(declared, dict):
        return "unknown"
    method = declared.get("quant_method")
    words = [method if isinstance(method, str) else "unknown"]
    bits = declared.get("bits")
    if isinstance(bits, int) and not isinstance(bits, bool):
        words.append(f"{bits}-bit")
    elif declared.get("load_in_4bit") is True:
        words.append("4-bit")
    elif declared.get("load_in_8bit") is True:
        words.append("8-bit")
    return " ".join(words)


def _safetensors_summary(folder: Path) -> Summary:
    config = _read_object(folder / CONFIG)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise ModelCorrupt(f"{CONFIG} is damaged: it does not say the model_type.", file=CONFIG)
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else model_type
    inner = config.get("text_config")
    places = [config, inner if isinstance(inner, dict) else {}]
    dtypes = [place.get(key) for place in places for key in ("dtype", "torch_dtype")]
    dtype = next((one for one in dtypes if isinstance(one, str)), "")
    single = folder / WEIGHTS
    for path in (
        [single] if single.exists() else [safe_join(folder, name) for name in shard_names(folder / INDEX)]
    ):
        _check_start(path)
    return Summary("safetensors", architecture, model_type, quantization_of(config), dtype)


def _gguf_summary(path: Path) -> Summary:
    # Late: most models are in the other format, and a list should be quick.
    from llm_local.store.gguf_header import quantization_name, read_gguf

    header = read_gguf(path, tensors=False)
    quantization = quantization_name(header)
    return Summary("gguf", header.architecture, header.architecture, quantization)


def _check_start(path: Path) -> None:
    """Refuse weights that are empty, or whose header would be larger than the file."""
    with open(path, "rb") as data:
        start = data.read(8)
        size = os.fstat(data.fileno()).st_size
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
        raise ModelCorrupt(f"{path.name} is damaged: it does not begin like weights.", file=path.name)


def _read_object(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_BYTES:
        raise ModelCorrupt(f"{path.name} is larger than {_MAX_BYTES >> 20} MB.", file=path.name)
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ModelCorrupt(f"{path.name} is damaged: it is not JSON.", file=path.name) from None
    if not isinstance(found, dict):
        raise ModelCorrupt(f"{path.name} is damaged: it is not a JSON object.", file=path.name)
    return found
