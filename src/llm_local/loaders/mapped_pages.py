"""Giving back the pages of weight files that were read, so that packing a model never holds it twice."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import torch

__all__ = ["MappedFiles"]

_MAPS: Final = Path("/proc/self/maps")


class MappedFiles:
    """The places where `files` are mapped into this process now. Nothing is found, and released, outside Linux."""

    def __init__(self, files: Iterable[Path]) -> None:
        wanted = {str(path.resolve()) for path in files}
        self._spans: list[tuple[int, int]] = []
        self._libc = ctypes.CDLL(None)
        try:
            lines = _MAPS.read_text(errors="replace").splitlines()
        except OSError:
            return
        for line in lines:  # begin-end rights offset device inode path
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5] in wanted:
                begin, end = (int(part, 16) for part in fields[0].split("-"))
                self._spans.append((begin, end))

    def release(self, tensor: torch.Tensor) -> None:
        """Drop the whole pages of a tensor that lies in one of the files; it is read anew where it is needed again.

        Only pages of files: what lies elsewhere would be lost.
        """
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin and any(low <= begin and end <= high for low, high in self._spans):
            self._libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
