"""Reading the headers of safetensors files and judging them before anything is allocated.

    8 bytes  length N of the header, little endian
    N bytes  JSON: tensor name -> dtype, shape, data_offsets [begin, end) into what follows
    …        the tensors, without gaps

A header says everything about sizes, so damage is found, and memory is counted, without reading the weights.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from llm_local.errors import ModelCorrupt, UnsafeWeights
from llm_local.store.names import shown
from llm_local.store.selection import INDEX, WEIGHTS, is_pickle
from llm_local.store.weight_index import read_index

__all__ = ["Tensor", "Weights", "parse_header", "read_header", "read_weights"]

_MAX_HEADER_BYTES: Final = 100_000_000  # the limit of the format's own library
_BITS: Final[Mapping[str, int]] = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
    "U16": 16, "U8": 8, "BOOL": 8, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_COMPUTABLE: Final = ("F64", "F32", "F16", "BF16")
_REPAIR: Final = "Delete the file and fetch the model again."


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as its file describes it."""

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Weights:
    """All tensors of a model, by name."""

    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]

    @property
    def num_bytes(self) -> int:
        """Size of all tensors as stored."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    @property
    def largest_bytes(self) -> int:
        """Size of the largest tensor as stored."""
        return max((tensor.num_bytes for tensor in self.tensors.values()), default=0)

    @property
    def dtype(self) -> str:
        """The number format that most of the weights have: F64, F32, F16 or BF16."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            sizes[tensor.dtype] += tensor.num_bytes
        computable = [(sizes[dtype], dtype) for dtype in _COMPUTABLE if sizes[dtype]]
        return max(computable)[1] if computable else "F32"

    def bytes_as(self, bytes_per_number: int) -> int:
        """Size of all tensors when every number takes `bytes_per_number` bytes."""
        return bytes_per_number * sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def read_weights(folder: Path) -> Weights:
    """Read and judge the headers of a model's weight files.

    Raises:
        ModelCorrupt: a file is missing, truncated, damaged or something else, or the index does not fit; it is named.
        UnsafeWeights: there are only pickle files.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    sharded = _read_shards(folder, read_index(index)) if index.is_file() else None
    # first, as transformers looks for it first: what is judged is what is loaded
    if single.exists() or single.is_symlink():
        return Weights((single,), read_header(single))
    if sharded is not None:
        return sharded
    pickles = sorted(path.name for path in folder.iterdir() if is_pickle(path.name))
    if pickles:
        raise UnsafeWeights(
            f"The weights are there only as pickle ({pickles[0]}), and loading that can run code hidden in it.",
            "Choose a model with safetensors weights, or convert it where you trust its source.",
            file=pickles[0],
        )
    raise ModelCorrupt(f"{WEIGHTS} is missing.", _REPAIR, file=WEIGHTS)


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, from its header, which is checked against the size of the file.

    Raises:
        ModelCorrupt: the file is not what its name says; the message names it, and the offset in bytes where known.
    """
    try:
        with open(path, "rb") as data:
            size = data.seek(0, 2)
            data.seek(0)
            return parse_header(data, size, path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelCorrupt(f"{path.name} is missing.", _REPAIR, file=path.name) from error
    except OSError as error:
        raise ModelCorrupt(
            f"{path.name} cannot be read: {error.strerror or error}.",
            "Check the file and its permissions.",
            file=path.name,
        ) from error


def parse_header(data: BinaryIO, size: int, path: Path) -> dict[str, Tensor]:
    """As `read_header`, from the start of a file of `size` bytes; no more than the header is read.

    Raises:
        ModelCorrupt: the file is not what its name says.
    """
    start = data.read(512)
    _refuse_impostors(start, size, path)
    if size < 8:
        raise _corrupt(path, f"it ends after {size} bytes, within the length of its header")
    length: int = struct.unpack("<Q", start[:8])[0]
    if length > _MAX_HEADER_BYTES:
        raise _corrupt(
            path, f"it declares a header of {length} bytes at offset 0, more than {_MAX_HEADER_BYTES}"
        )
    if 8 + length > size:
        raise _corrupt(path, f"its header should end at offset {8 + length}, but the file ends at {size}")
    data.seek(8)
    try:
        header = json.loads(data.read(length).decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"its header at offset 8 is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _corrupt(path, "its header at offset 8 is not a JSON object")
    header.pop("__metadata__", None)
    if not header:
        raise _corrupt(path, "it has no tensors")
    return _layout(header, path, begin=8 + length, size=size)


def _read_shards(folder: Path, index: Mapping[str, str]) -> Weights:
    shards = {name: read_header(folder / name) for name in sorted(set(index.values()))}
    for tensor, shard in index.items():
        if tensor not in shards[shard]:
            raise ModelCorrupt(
                f"{INDEX} says that {shown(tensor)} is in {shard}, but it is not there.", _REPAIR, file=shard
            )
    tensors = {tensor: found for header in shards.values() for tensor, found in header.items()}
    return Weights(tuple(folder / name for name in shards), tensors)


def _layout(header: dict[str, Any], path: Path, *, begin: int, size: int) -> dict[str, Tensor]:
    """The tensors, when together they fill the file from `begin` to `size` without gap or overlap."""
    tensors, spans = {}, []
    for name, entry in header.items():
        tensor, low, high = _entry(name, entry, path)
        if high - low != tensor.num_bytes:
            raise _corrupt(
                path,
                f"{shown(name)} at offset {begin + low} has {high - low} bytes, but its shape needs {tensor.num_bytes}",
            )
        tensors[name] = tensor
        spans.append((low, high, name))
    position = 0
    for low, high, name in sorted(spans):
        if low != position:
            what = "overlaps the tensor before it" if low < position else "leaves a gap before it"
            raise _corrupt(path, f"{shown(name)} at offset {begin + low} {what}")
        position = high
    if begin + position != size:
        state = "is truncated" if begin + position > size else "goes on"
        raise _corrupt(path, f"its tensors end at offset {begin + position}, but the file {state} at {size}")
    return tensors


def _entry(name: str, entry: Any, path: Path) -> tuple[Tensor, int, int]:
    try:
        dtype, shape, (low, high) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, low, high]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(name)
        bits = math.prod(shape) * _BITS[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(path, f"its header describes {shown(name)} in a way that makes no sense") from error
    if name.endswith(".weight") and dtype not in _COMPUTABLE:
        raise _corrupt(path, f"{shown(name)} is stored as {dtype}, which is not a format of plain weights")
    return Tensor(dtype, tuple(shape), bits // 8), low, high


def _refuse_impostors(start: bytes, size: int, path: Path) -> None:
    """Name the usual things that lie where weights should be."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if size == 0:
        raise _corrupt(path, "it is empty")
    if text.startswith(b"version https://git-lfs"):
        raise ModelCorrupt(
            f"{path.name} is a pointer of git LFS, not the weights it points to.",
            "Run `git lfs pull` in its repository, or fetch the model again.",
            file=path.name,
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise _corrupt(path, "it is a web page, probably an error or a login page that was saved")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _corrupt(path: Path, reason: str) -> ModelCorrupt:
    return ModelCorrupt(f"{path.name} is damaged: {reason}.", _REPAIR, file=path.name)
