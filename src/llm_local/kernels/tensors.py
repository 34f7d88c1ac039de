"""What a tensor must be before its address goes to the native library, which sees nothing else of it."""

from __future__ import annotations

from typing import Final

import torch

from llm_local.errors import EngineError
from llm_local.kernels.layout import LlmDtype

__all__ = ["DTYPES", "check_rows", "check_tensors", "check_weights"]

DTYPES: Final = {
    torch.float32: LlmDtype.F32,
    torch.bfloat16: LlmDtype.BF16,
    torch.float16: LlmDtype.F16,
}

_ROWS: Final = (torch.float32, torch.bfloat16)


def check_rows(x: torch.Tensor, *others: torch.Tensor) -> None:
    """Activations: float32 or bfloat16, all of them the same.

    Raises:
        EngineError: they are not, or as `check_tensors`.
    """
    if x.dtype not in _ROWS:
        raise EngineError(f"Native kernels compute in float32 and bfloat16, not in {x.dtype}.")
    check_tensors(x.dtype, x, *others)


def check_weights(source: torch.Tensor) -> None:
    """Weights to be packed, `[rows, cols]` without gaps inside a row: float32, bfloat16 or float16 on the CPU.

    Raises:
        EngineError: they are not.
    """
    if source.dtype not in DTYPES or not source.is_cpu:
        raise EngineError(f"Weights of {source.dtype} on {source.device} cannot be packed.")


def check_tensors(dtype: torch.dtype, *tensors: torch.Tensor) -> None:
    """Tensors of one dtype on the CPU, without gaps.

    Raises:
        EngineError: one of them is something else.
    """
    for one in tensors:
        if one.dtype is not dtype or not one.is_cpu or not one.is_contiguous():
            gaps = "" if one.is_contiguous() else ", with gaps"
            raise EngineError(
                f"A native kernel takes {dtype} on cpu without gaps, not {one.dtype} on {one.device}{gaps}."
            )
