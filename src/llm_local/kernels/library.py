"""The native library in this process: loaded when first asked for, on torch's own threads, or absent with a reason."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Sequence
from ctypes import byref, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from llm_local.errors import EngineError, InsufficientMemory, LocalLLMError
from llm_local.kernels.build import discard, ensure_built
from llm_local.kernels.compiler import BuildFailed
from llm_local.kernels.layout import (
    ABI_VERSION,
    PROTOTYPES,
    STRUCTS,
    LlmAttention,
    LlmBatch,
    LlmLinear,
    LlmModel,
    LlmSegment,
    LlmStatus,
    LlmWeightKind,
)
from llm_local.kernels.tensors import DTYPES, check_rows, check_tensors, check_weights

__all__ = ["Native", "NativeStatus", "Scratch", "native", "status"]

logger = logging.getLogger(__name__)

VARIANT_VARIABLE: Final = "LLM_LOCAL_KERNEL_VARIANT"

# What torch calls the OpenMP runtime that it brings along: GNU's, LLVM's or Intel's.
_OPENMP_FILES: Final = ("libgomp*", "libomp*", "libiomp5*")


@dataclass(frozen=True, slots=True)
class NativeStatus:
    """Which kernels run here. `reason` says why there are none, and `mend` what to do; else both are empty."""

    variant: str
    usable_variants: tuple[str, ...]
    library: str
    threads: str
    reason: str = ""
    mend: str = ""


class Scratch:
    """Memory that one caller of `Native.step` keeps from step to step."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._free = library.llm_scratch_free
        self.pointer = library.llm_scratch_new()
        if not self.pointer:
            raise InsufficientMemory("There is no memory for a forward pass.", need_bytes=0, have_bytes=0)

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self._free(self.pointer)


class Native:
    """The functions of the library over torch tensors on the CPU. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        """Load `path` and check that it is what layout.py describes.

        Raises:
            OSError: the file cannot be loaded. BuildFailed: it is of other sources.
            LocalLLMError: LLM_LOCAL_KERNEL_VARIANT names no variant that this CPU can run.
        """
        self.path = path
        self._library = ctypes.CDLL(str(path))
        for name, (result, arguments) in PROTOTYPES.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        sizes = [self._library.llm_struct_bytes(index) for index in range(len(STRUCTS))]
        if self._library.llm_abi_version() != ABI_VERSION or sizes != [ctypes.sizeof(one) for one in STRUCTS]:
            raise BuildFailed("the library does not fit this version of llm-local")
        self.threads = self._adopt_openmp()
        wanted = os.environ.get(VARIANT_VARIABLE)
        if wanted:
            self.use_variant(wanted)

    @property
    def variant(self) -> str:
        """The instruction-set variant that runs."""
        return str(self._library.llm_variant().decode())

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants that this CPU can run, best first."""
        return tuple(self._library.llm_variants().decode().split(","))

    def use_variant(self, name: str) -> None:
        """Run another variant from here on, for the whole process.

        Raises:
            LocalLLMError: this CPU cannot run it, or there is none of that name.
        """
        if self._library.llm_use_variant(name.encode()) != LlmStatus.OK:
            raise LocalLLMError(
                f"There is no kernel variant {name!r} for this CPU.",
                f"Choose one of {', '.join(self.variants)}.",
            )

    def packed_bytes(self, kind: LlmWeightKind, rows: int, cols: int) -> int:
        """Bytes that a matrix takes when packed as `kind` (Q8 or Q4)."""
        return int(self._library.llm_packed_bytes(kind, rows, cols))

    def pack(self, kind: LlmWeightKind, source: torch.Tensor, packed: torch.Tensor) -> bool:
        """Pack `source` `[rows, cols]` (float32, bfloat16 or float16) into `packed` (uint8, 64-byte aligned).

        False: the weights hold a NaN or an infinity.

        Raises:
            EngineError: other formats, or a buffer that is too small or not aligned.
        """
        rows, cols = source.shape
        if source.stride(1) != 1:
            source = source.contiguous()
        check_weights(source)
        check_tensors(torch.uint8, packed)
        if packed.nbytes < self.packed_bytes(kind, rows, cols) or packed.data_ptr() % 64:
            raise EngineError("The buffer of packed weights is too small or not aligned.")
        code = self._library.llm_pack(
            kind,
            source.data_ptr(),
            DTYPES[source.dtype],
            source.stride(0),
            rows,
            cols,
            packed.data_ptr(),
            torch.get_num_threads(),
        )
        if code == LlmStatus.NOT_FINITE:
            return False
        _check(code)
        return True

    def unpack(self, linear: LlmLinear) -> torch.Tensor:
        """The weights `[rows, cols]` that a linear layer of any kind multiplies with, float32."""
        out = torch.empty(linear.rows, linear.cols)
        self._library.llm_unpack(byref(linear), out.data_ptr(), torch.get_num_threads())
        return out

    def linear(
        self, parts: Sequence[LlmLinear], x: torch.Tensor, outputs: Sequence[torch.Tensor], threads: int = 0
    ) -> None:
        """y_i = x W_i^T + b_i into `outputs` `[tokens, rows_i]`, for parts that share `x` `[tokens, cols]`.

        All tensors are contiguous and of one dtype, float32 or bfloat16. `threads` 0: as many as torch uses.

        Raises:
            EngineError: tensors that are not what is said above.
        """
        check_rows(x, *outputs)
        sizes = [(len(x), part.rows) for part in parts]
        fits = all(x.shape[1:] == (part.cols,) for part in parts)
        if not fits or [(*output.shape,) for output in outputs] != sizes:
            raise EngineError("The shapes of a linear layer's tensors do not fit its weights.")
        structs = (LlmLinear * len(parts))(*parts)
        pointers = (c_void_p * len(outputs))(*(output.data_ptr() for output in outputs))
        threads = threads or torch.get_num_threads()
        _check(
            self._library.llm_linear(
                structs, len(parts), x.data_ptr(), pointers, DTYPES[x.dtype], x.shape[0], threads
            )
        )

    def attention(
        self, call: LlmAttention, segments: ctypes.Array[LlmSegment], layer: int, threads: int = 0
    ) -> None:
        """Append keys and values of `segments` to their stores and attend, for one layer."""
        threads = threads or torch.get_num_threads()
        _check(self._library.llm_attention(byref(call), segments, len(segments), layer, threads))

    def new_scratch(self) -> Scratch:
        """Memory for `step`, for one caller at a time."""
        return Scratch(self._library)

    def step(self, model: LlmModel, batch: LlmBatch, scratch: Scratch, threads: int) -> None:
        """One forward pass of a described decoder; see native/abi.h."""
        _check(self._library.llm_step(byref(model), byref(batch), scratch.pointer, threads))

    def _adopt_openmp(self) -> str:
        """Run on the threads torch already has: two pools would fight for the cores."""
        folder = Path(torch.__file__).parent / "lib"
        for path in sorted(file for name in _OPENMP_FILES for file in folder.glob(name)):
            try:
                runtime = ctypes.CDLL(str(path))  # torch has it open, so this is the same copy
                functions = [
                    ctypes.cast(getattr(runtime, name), c_void_p)
                    for name in ("GOMP_parallel", "omp_get_num_threads", "omp_get_thread_num")
                ]
            except (OSError, AttributeError):
                continue
            self._library.llm_use_openmp(*functions)
            return f"OpenMP of torch ({path.name})"
        return "own threads"


@functools.cache
def _load() -> Native | BuildFailed:
    """The library, or why there is none."""
    try:
        path = ensure_built()
        try:
            return Native(path)
        except (OSError, AttributeError, BuildFailed) as error:
            logger.warning("the native library at %s cannot be used (%s); building it again", path, error)
            discard(path)
            return Native(ensure_built())
    except BuildFailed as error:
        return error
    except OSError as error:
        return BuildFailed(f"the library cannot be loaded: {error}", "Set CXX to another C++ compiler.")


def native() -> Native | None:
    """The library, built and loaded at the first call; None when there is none (see `status`)."""
    loaded = _load()
    return loaded if isinstance(loaded, Native) else None


def status() -> NativeStatus:
    """Which kernels run in this process, and why."""
    loaded = _load()
    if isinstance(loaded, BuildFailed):
        return NativeStatus("", (), "", "", loaded.message, loaded.hint)
    return NativeStatus(loaded.variant, loaded.variants, str(loaded.path), loaded.threads)


def _check(code: int) -> None:
    if code == LlmStatus.OUT_OF_MEMORY:
        raise InsufficientMemory("The memory ran out in a forward pass.", need_bytes=0, have_bytes=0)
    if code != LlmStatus.OK:
        raise EngineError(f"The native library refused a call ({LlmStatus(code).name.lower()}).")
