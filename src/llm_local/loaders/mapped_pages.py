"""Weight files mapped into memory: where they lie, mapping one, and giving back the pages that were read.

Packing a model gives back what it has read, and so never holds it twice.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import torch

from llm_local.loaders.decoder_image import Span

__all__ = ["MappedFiles", "map_descriptor", "map_file", "mapped_spans"]

_MAPS: Final = Path("/proc/self/smaps")  # with the pages of each mapping that were changed
_MAPPING: Final = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/.*)$|^Anonymous: +(\d+) kB$", re.MULTILINE
)


class MappedFiles:
    """The places where `files` are mapped into this process now. Nothing is found, and released, outside Linux."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._spans = mapped_spans(tuple(files))
        self._libc = ctypes.CDLL(None)

    def release(self, tensor: torch.Tensor) -> None:
        """Drop the whole pages of a tensor that lies in one of the files; it is read anew where it is needed again.

        Only pages of files: what lies elsewhere would be lost.
        """
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        inside = any(one.begin <= begin and end <= one.begin + one.num_bytes for one in self._spans)
        if end > begin and inside:
            self._libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)


def mapped_spans(files: Sequence[Path]) -> list[Span]:
    """Where `files` are mapped into this process and still are what is on the disk; a file's number is its region.

    A mapping of which any page was written to is left out. Nothing is found outside Linux.
    """
    numbers = {str(path.resolve()): index for index, path in enumerate(files)}
    found: list[Span] = []
    try:
        details = _MAPS.read_text(errors="replace")
    except OSError:
        return found
    mapping: tuple[str, ...] = ()
    for *where, changed in _MAPPING.findall(details):
        if not changed:
            mapping = tuple(where)
            continue
        if mapping and mapping[3] in numbers and changed == "0":
            begin, end, offset = (int(one, 16) for one in mapping[:3])
            found.append(Span(begin, end - begin, numbers[mapping[3]], offset))
        mapping = ()  # the next figure may be of memory without a file
    return found


def map_file(path: Path) -> torch.Tensor:
    """A whole file as uint8, read when it is looked at. What is written to it stays in this process.

    Raises:
        OSError: it cannot be opened or mapped.
    """
    with open(path, "rb") as file:
        return map_descriptor(file.fileno(), os.fstat(file.fileno()).st_size)


def map_descriptor(descriptor: int, size: int) -> torch.Tensor:
    """The first `size` bytes of an open file, as `map_file`; unmapped with the last tensor over it."""
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    return torch.frombuffer(mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, rights), dtype=torch.uint8)
