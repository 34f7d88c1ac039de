"""What a GGUF file says of itself, read from its header without trusting a single number in it.

    magic "GGUF", version 2 or 3, number of tensors, number of entries        little endian
    entries    key, type, value: architecture, sizes, tokenizer, chat template
    tensors    name, shape, type, offset into what follows
    …          the tensors, aligned

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Everything is checked against the size
of the file: declared sizes have been the way into readers of this format.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from llm_local.errors import ModelCorrupt
from llm_local.store.names import shown

__all__ = ["GgufHeader", "GgufTensor", "quantization_name", "read_gguf"]

_VERSIONS: Final = (2, 3)
_MAX_ENTRIES: Final = 65_536
_MAX_TENSORS: Final = 1_000_000
_MAX_TEXT_BYTES: Final = 1 << 20
_MAX_ITEMS: Final = 1 << 24
_MAX_HEADER_BYTES: Final = 512 << 20
_MAX_DIMENSIONS: Final = 4
_MAX_ALIGNMENT: Final = 1 << 16
_READ_BYTES: Final = 1 << 20
_SCALARS: Final[Mapping[int, struct.Struct]] = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<?"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_TEXT: Final = 8
_ARRAY: Final = 9
# Type of a tensor: its name, how many numbers a block has, and how many bytes.
_TYPES: Final[Mapping[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip
# `general.file_type`: what most of the tensors are, as the name of such a file says it.
_FILE_TYPES: Final[Mapping[int, str]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS",
    20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
    39: "NVFP4", 40: "Q1_0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor as the file describes it. `num_bytes` is None for a type that is not known here."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    num_bytes: int | None


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The entries and tensors of a file. Of a list only its length is kept; `tensors` may have been left unread."""

    version: int
    values: Mapping[str, Any]
    tensors: tuple[GgufTensor, ...] = ()

    @property
    def architecture(self) -> str:
        """The family, as the makers of the format call it; "" where that is not said."""
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """An entry that is a text, or ""."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """An entry of the architecture that is a whole number, such as `context_length`, or None."""
        value = self.values.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class _Items:
    """A list of so many items, which are not kept."""

    count: int

    def __len__(self) -> int:
        return self.count


def read_gguf(path: Path, *, tensors: bool = True) -> GgufHeader:
    """Read and judge the header of a file; without `tensors` only up to its tokenizer.

    Raises:
        ModelCorrupt: it is not what its name says; the message names it, and the offset in bytes.
    """
    try:
        with open(path, "rb", buffering=0) as data:
            return _Reader(data, path).header(tensors=tensors)
    except OSError as error:
        raise ModelCorrupt(
            f"{path.name} cannot be read: {error.strerror or error}.",
            "Check the file and its permissions.",
            file=path.name,
        ) from error


def quantization_name(header: GgufHeader) -> str:
    """What the weights are quantized to, such as Q4_K_M; "" where the file does not say."""
    declared = _FILE_TYPES.get(header.values.get("general.file_type", -1))
    if declared is not None:
        return declared
    sizes: Counter[str] = Counter()
    for tensor in header.tensors:
        sizes[tensor.type_name] += math.prod(tensor.shape)
    return sizes.most_common(1)[0][0] if sizes else ""


class _Reader:
    """Reads from the start of a file on, each piece only when it is there."""

    def __init__(self, data: BinaryIO, path: Path) -> None:
        self._data = data
        self._path = path
        self._size = os.fstat(data.fileno()).st_size
        self._buffer = bytearray()
        self._at = 0

    def header(self, *, tensors: bool) -> GgufHeader:
        """The whole header."""
        if self._size < 24 or self._take(4) != b"GGUF":
            raise self._corrupt("it does not begin like a GGUF file", 0)
        version = self._number(4)
        if version not in _VERSIONS:
            raise self._corrupt(f"its version is {version}, and known are 2 and 3", 4)
        num_tensors = self._count(_MAX_TENSORS, "tensors", 1)
        num_entries = self._count(_MAX_ENTRIES, "entries", 1)
        values: dict[str, Any] = {}
        for _ in range(num_entries):
            key = self._text()
            if not tensors and key.startswith("tokenizer."):
                return GgufHeader(version, values)
            if key in values:
                raise self._corrupt(f"{shown(key)} occurs twice")
            values[key] = self._value(self._number(4), depth=0)
        if not tensors:
            return GgufHeader(version, values)
        return GgufHeader(version, values, self._tensors(num_tensors, _alignment(values)))

    def _tensors(self, count: int, alignment: int | None) -> tuple[GgufTensor, ...]:
        if alignment is None:
            raise self._corrupt("its alignment is no power of two")
        found: dict[str, tuple[GgufTensor, int]] = {}
        for _ in range(count):
            name = self._text()
            if name in found:
                raise self._corrupt(f"the tensor {shown(name)} occurs twice")
            num_dimensions = self._number(4)
            if num_dimensions > _MAX_DIMENSIONS:
                raise self._corrupt(f"{shown(name)} has {num_dimensions} dimensions")
            shape = tuple(self._number(8) for _ in range(num_dimensions))
            kind, offset = self._number(4), self._number(8)
            found[name] = GgufTensor(name, *self._layout(name, kind, shape)), offset
        begin = -(-self._at // alignment) * alignment
        for tensor, offset in found.values():
            end = begin + offset + (tensor.num_bytes or 0)
            if offset % alignment or end > self._size:
                raise self._corrupt(
                    f"{shown(tensor.name)} should end at offset {end}, but the file ends at {self._size}"
                )
        return tuple(tensor for tensor, _ in found.values())

    def _layout(
        self, name: str, kind: int, shape: tuple[int, ...]
    ) -> tuple[str, tuple[int, ...], int | None]:
        if kind not in _TYPES:
            return f"type {kind}", shape, None
        type_name, block, block_bytes = _TYPES[kind]
        if shape and shape[0] % block:
            raise self._corrupt(f"{shown(name)} has rows of {shape[0]}, which {type_name} cannot have")
        return type_name, shape, math.prod(shape) // block * block_bytes

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _SCALARS:
            layout = _SCALARS[kind]
            return layout.unpack(self._take(layout.size))[0]
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY or depth > 1:
            raise self._corrupt(f"an entry has the type {kind}, which there is not")
        item = self._number(4)
        if item in _SCALARS:
            count = self._count(_MAX_ITEMS, "items in a list", _SCALARS[item].size)
            self._skip(count * _SCALARS[item].size)
            return _Items(count)
        count = self._count(_MAX_ITEMS, "items in a list", 8)
        for _ in range(count):
            if item == _TEXT:
                self._skip(self._count(_MAX_TEXT_BYTES, "bytes of text", 1))
            else:
                self._value(item, depth + 1)
        return _Items(count)

    def _text(self) -> str:
        raw = self._take(self._count(_MAX_TEXT_BYTES, "bytes of text", 1))
        return bytes(raw).decode("utf-8", errors="replace")

    def _count(self, most: int, what: str, least_bytes: int) -> int:
        """A declared count, which what is left of the file must have room for."""
        count = self._number(8)
        if count > most or count * least_bytes > self._size - self._at:
            raise self._corrupt(f"it declares {count} {what}", self._at - 8)
        return count

    def _number(self, num_bytes: int) -> int:
        return int.from_bytes(self._take(num_bytes), "little")

    def _take(self, count: int) -> bytes:
        start = self._at
        self._skip(count)
        return bytes(self._buffer[start : self._at])

    def _skip(self, count: int) -> None:
        end = self._at + count
        if end > self._size or end > _MAX_HEADER_BYTES:
            raise self._corrupt(f"its header should go on to offset {end}, but the file ends at {self._size}")
        while len(self._buffer) < end:
            piece = self._data.read(_READ_BYTES)
            if not piece:
                raise self._corrupt(f"it ends at offset {len(self._buffer)}, within its header")
            self._buffer += piece
        self._at = end

    def _corrupt(self, reason: str, offset: int | None = None) -> ModelCorrupt:
        place = self._at if offset is None else offset
        return ModelCorrupt(
            f"{self._path.name} is damaged: {reason} (at offset {place}).",
            "Fetch the file again.",
            file=self._path.name,
        )


def _alignment(values: Mapping[str, Any]) -> int | None:
    found = values.get("general.alignment", 32)
    right = isinstance(found, int) and 0 < found <= _MAX_ALIGNMENT and found & (found - 1) == 0
    return found if right else None
