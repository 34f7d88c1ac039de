"""One file with all tensors of a packed model, read into large pages (else mapped into memory) and never trusted.

    8 bytes   b"llmpack" and the version of this format
    8 bytes   length N of the header, little endian
    16 bytes  digest of the header (blake2b)
    N bytes   JSON: {"key": whose tensors these are, "facts": what else is known of the model,
              "tensors": [{"names", "format", "shape", "digest"}]}
    …         from the next multiple of 4,096: the tensors, each at a multiple of 64 bytes, padded with zeros

The header is written last, so a file without one is not finished.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO, Final

import torch

from llm_local.loaders.large_pages import has_large_pages, large_pages
from llm_local.loaders.mapped_pages import map_descriptor
from llm_local.loaders.packing import Layout, Part

__all__ = ["DamagedPack", "PackedTensors", "Write", "in_memory", "open_packed", "write_packed"]

Write = Callable[[int, torch.Tensor], None]
"""Takes an offset in bytes, and what lies there."""

_MAGIC: Final = b"llmpack\x02"
_PREFIX: Final = struct.Struct("<8sQ16s")
_MAX_HEADER_BYTES: Final = 64 << 20
_PAGE: Final = 4096
_DIGEST_BYTES: Final = 8
_READERS: Final = 2  # copying from the disk's cache is a matter of memory, not of cores
_WORDS: Final = 1024  # whose sum is one word of what a digest is made from


class DamagedPack(Exception):
    """A file is not what its name says; the text says why, for the log."""


@dataclass(frozen=True, slots=True)
class PackedTensors:
    """All parts of a packed model, over `storage`: uint8, which a file or nobody stands behind. `facts` is JSON."""

    layout: Layout
    storage: torch.Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[Part, torch.Tensor]]:
        """Each part with its bytes, or, where it is not packed, as the tensor it is."""
        for part, begin in zip(self.layout.parts, self.layout.offsets, strict=True):
            stored = self.storage[begin : begin + part.num_bytes]
            yield (
                part,
                stored if part.is_packed else stored.view(part.dtype).view(part.shape),
            )


def in_memory(layout: Layout, fill: Callable[[Write], None]) -> PackedTensors:
    """Tensors that lie in no file; `fill` writes them."""
    storage = large_pages(layout.num_bytes)

    def write(offset: int, piece: torch.Tensor) -> None:
        storage[offset : offset + piece.numel()] = piece

    fill(write)
    return PackedTensors(layout, storage)


def write_packed(
    file: BinaryIO,
    key: str,
    layout: Layout,
    fill: Callable[[Write], None],
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Make a packed file of an empty one: room for all first, then the tensors, then the header.

    Raises:
        OSError: the disk is full or refuses; nothing was packed when it is known to be too small.
    """
    begin = _data_begin(len(_header(key, layout, [bytes(_DIGEST_BYTES)] * len(layout.parts), facts)))
    size = begin + layout.num_bytes
    _reserve(file.fileno(), size)

    def write(offset: int, piece: torch.Tensor) -> None:
        _write_all(file.fileno(), piece.numpy().data, begin + offset)

    fill(write)
    storage = map_descriptor(file.fileno(), size)[begin:]
    header = _header(key, layout, [_digest(one) for one in _padded_parts(layout, storage)], facts)
    digest = hashlib.blake2b(header, digest_size=16).digest()
    _write_all(file.fileno(), memoryview(_PREFIX.pack(_MAGIC, len(header), digest) + header), 0)


def open_packed(file: BinaryIO, key: str) -> PackedTensors:
    """Read or map a packed file, every byte of which is checked. Changes to the tensors stay in this process.

    Raises:
        DamagedPack: it is not whole, or not ours.
    """
    size = os.fstat(file.fileno()).st_size
    start = os.pread(file.fileno(), _PREFIX.size, 0)
    if len(start) < _PREFIX.size:
        raise DamagedPack(f"it ends after {size} bytes")
    magic, length, digest = _PREFIX.unpack(start)
    if magic != _MAGIC:
        raise DamagedPack("it is not a packed file of this version, or was not finished")
    if length > _MAX_HEADER_BYTES or _data_begin(length) > size:
        raise DamagedPack("its header goes past its end")
    header = os.pread(file.fileno(), length, _PREFIX.size)
    if hashlib.blake2b(header, digest_size=16).digest() != digest:
        raise DamagedPack("its header was changed")
    found = json.loads(header)  # as this program wrote it, by its digest
    if found["key"] != key:
        raise DamagedPack("it is another model's")
    entries = found["tensors"]
    layout = Layout(tuple(Part(tuple(one["names"]), one["format"], tuple(one["shape"])) for one in entries))
    begin = _data_begin(length)
    if size != begin + layout.num_bytes:
        raise DamagedPack(f"it has {size} bytes instead of {begin + layout.num_bytes}")
    copied = has_large_pages()
    storage = large_pages(layout.num_bytes) if copied else map_descriptor(file.fileno(), size)[begin:]

    def check(part: tuple[int, torch.Tensor]) -> bytes:
        offset, stored = part
        if copied:
            _read_all(file.fileno(), stored.numpy().data, begin + offset)
        return _digest(stored)

    with ThreadPoolExecutor(_READERS) as pool:
        digests = list(pool.map(check, zip(layout.offsets, _padded_parts(layout, storage), strict=True)))
    for entry, digest in zip(entries, digests, strict=True):
        if digest.hex() != entry["digest"]:
            raise DamagedPack(f"{entry['names'][0]} was changed")
    return PackedTensors(layout, storage, found["facts"])


def _header(key: str, layout: Layout, digests: list[bytes], facts: Mapping[str, Any]) -> bytes:
    entries: list[dict[str, Any]] = [
        {"names": part.names, "format": part.format, "shape": part.shape, "digest": digest.hex()}
        for part, digest in zip(layout.parts, digests, strict=True)
    ]
    return json.dumps({"key": key, "facts": dict(facts), "tensors": entries}).encode()


def _digest(stored: torch.Tensor) -> bytes:
    """A digest of sums: as fast as memory is read, and no single change leaves it as it was.

    Of two changes within 8 KiB one in 2^64 could hide the other; this is against damage, not against an enemy.
    """
    words = stored.view(torch.int64).numpy()  # not torch: its threads wait for each other on a busy machine
    whole = len(words) // _WORDS * _WORDS
    data = words[:whole].reshape(-1, _WORDS).sum(1).tobytes() + words[whole:].tobytes()
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _padded_parts(layout: Layout, storage: torch.Tensor) -> Iterator[torch.Tensor]:
    offsets = (*layout.offsets, layout.num_bytes)
    return (storage[begin:end] for begin, end in zip(offsets, offsets[1:], strict=False))


def _data_begin(header_bytes: int) -> int:
    return -(-(_PREFIX.size + header_bytes) // _PAGE) * _PAGE


def _reserve(descriptor: int, size: int) -> None:
    """Take the room at once: a disk that is too small says so before the work is done."""
    os.truncate(descriptor, 0)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        unknown = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
        if isinstance(error, OSError) and error.errno not in unknown:
            raise
        os.truncate(descriptor, size)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    data = data.cast("B")
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _read_all(descriptor: int, into: memoryview, offset: int) -> None:
    into = into.cast("B")
    while into:
        count = os.preadv(descriptor, [into], offset)
        if count == 0:
            raise DamagedPack(f"it ends after {offset} bytes")
        into, offset = into[count:], offset + count
