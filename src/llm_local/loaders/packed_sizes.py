"""How large a matrix is when packed. Arithmetic alone, so that a model can be judged without torch."""

from __future__ import annotations

from typing import Final

__all__ = ["packed_bytes"]

_BLOCK_BYTES: Final = {"int8": 1088, "int4": 576}  # of 16 outputs x 64 inputs
_BLOCK_ROWS: Final = 16
_BLOCK_COLS: Final = 64


def packed_bytes(bits: str, rows: int, cols: int) -> int:
    """Size of a packed matrix; `bits` is int8 or int4."""
    return -(-rows // _BLOCK_ROWS) * -(-cols // _BLOCK_COLS) * _BLOCK_BYTES[bits]
