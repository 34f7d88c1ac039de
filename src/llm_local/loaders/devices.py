"""Where a model runs, in which number format, and whether it fits."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import torch

from llm_local.errors import InsufficientMemory, InvalidRequest
from llm_local.loaders.host import SMALL_BYTES, WORKING_BYTES, computes_bfloat16, host_bytes
from llm_local.loaders.quantization import Choice, choose_quantization, estimated_bytes
from llm_local.loaders.safetensors import Weights
from llm_local.specs import Kernels, ModelSpec, PackedBits

__all__ = [
    "Placement",
    "available_bytes",
    "gpu_bytes",
    "no_native",
    "place",
    "release_memory",
    "resolve_device",
    "resolve_dtype",
    "stored_dtype",
]

_STORED: Final = {"F64": torch.float32, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ASKED: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Placement:
    """The decision. `need_bytes` is what the weights take; `spread` is True when one device does not hold them.

    `dtype` is the number format of all that is not packed to `bits`.
    """

    device: str
    dtype: torch.dtype
    need_bytes: int
    spread: bool = False
    notice: str = ""
    bits: PackedBits = "none"


def place(spec: ModelSpec, weights: Weights, have: Callable[[str], int] | None = None) -> Placement:
    """Decide where and how `weights` go, before anything is allocated.

    `have` says how much of a device's memory may be counted on; by default what is free now.

    Raises:
        InvalidRequest: a device was asked for that this machine does not have.
        InsufficientMemory: they do not fit; both numbers are in the message.
    """
    device = resolve_device(spec.device)
    choice = choose_quantization(spec, device, weights, lambda: no_native(spec.kernels))
    if choice.bits != "none":
        return _place_packed(spec, weights, choice, (have or available_bytes)("cpu"))
    placement = _place_plain(spec, device, weights, have)
    return replace(placement, notice=choice.why) if choice.why else placement


def no_native(kernels: Kernels) -> str:
    """Why native code computes nothing here; "" where it does."""
    # Late: it may have to be compiled.
    from llm_local.kernels.library import status

    return "KERNELS is off" if kernels == "off" else status().reason


def _place_packed(spec: ModelSpec, weights: Weights, choice: Choice, have: int) -> Placement:
    need = estimated_bytes(weights, choice.bits) + WORKING_BYTES
    if need > have:
        fewer = choice.bits == "int8" and estimated_bytes(weights, "int4") + WORKING_BYTES <= have
        raise InsufficientMemory(
            f"{spec.ref} needs {_size(need)} of memory as {choice.bits}, but {_size(have)} are free on cpu.",
            "Use --quant int4, which fits." if fewer else "Choose a smaller model, or close other programs.",
            need_bytes=need,
            have_bytes=have,
        )
    return Placement("cpu", torch.float32, need, notice=choice.why, bits=choice.bits)


def _place_plain(
    spec: ModelSpec, device: str, weights: Weights, counted: Callable[[str], int] | None
) -> Placement:
    dtype = resolve_dtype(spec, device, weights)
    need, have = _need_bytes(weights, dtype), (counted or available_bytes)(device)
    if need > have and device == "cpu" and spec.dtype == "auto" and dtype == torch.float32:
        halved = _need_bytes(weights, torch.bfloat16)
        if halved <= have:  # slower to compute on this machine, but it runs
            dtype, need = torch.bfloat16, halved
    if need > have and device == "cuda" and torch.cuda.device_count() > 1:
        together = (counted or gpu_bytes)(device)
        if need <= together:
            return Placement(device, dtype, need, spread=True, notice=_notice(spec, device, dtype, weights))
        have = together
    if need > have:
        raise InsufficientMemory(
            f"{spec.ref} needs {_size(need)} of memory as {_name(dtype)}, but {_size(have)} are free on {device}.",
            _memory_hint(spec, device, dtype, estimated_bytes(weights, "int8") + WORKING_BYTES <= have),
            need_bytes=need,
            have_bytes=have,
        )
    return Placement(device, dtype, need, notice=_notice(spec, device, dtype, weights))


def resolve_device(asked: str) -> str:
    """cpu, cuda or mps. "auto" takes a GPU where there is one.

    Raises:
        InvalidRequest: this machine, or this build of torch, does not have the device.
    """
    there: dict[str, Callable[[], bool]] = {
        "cpu": lambda: True,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if asked == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name]())
    if not there[asked]():
        built = asked == "mps" or torch.backends.cuda.is_built()
        why = "no such device is found" if built else "the installed torch is built for the CPU only"
        raise InvalidRequest(
            f"The device {asked} is asked for, but {why}.",
            "Use --device auto or --device cpu.",
            param="device",
        )
    return asked


def resolve_dtype(spec: ModelSpec, device: str, weights: Weights) -> torch.dtype:
    """The number format to compute in. "auto" keeps the stored one where the device computes it fast.

    Measured on a CPU without bfloat16 instructions: prompts run 3 to 10 times slower in it than in float32.
    """
    if spec.dtype != "auto":
        return _ASKED[spec.dtype]
    stored = stored_dtype(weights)
    if device == "mps":
        return stored
    if device == "cuda":
        half = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return half if stored == torch.bfloat16 else stored
    # A small model costs nothing in float32, and is exact in it.
    if stored == torch.float32 or weights.bytes_as(4) <= SMALL_BYTES or not computes_bfloat16():
        return torch.float32
    return torch.bfloat16


def stored_dtype(weights: Weights) -> torch.dtype:
    """The number format that most of the weights have in their files; float32 for float64."""
    return _STORED[weights.dtype]


def available_bytes(device: str) -> int:
    """Memory that can still be taken on a device (the current one, of several GPUs)."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return host_bytes()


def gpu_bytes(device: str) -> int:
    """The same of all GPUs together, over which a model is spread where one does not hold it."""
    if device != "cuda":
        return available_bytes(device)
    return sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))


def release_memory() -> None:
    """Give back what allocators hold of models that are gone: to the operating system, and to other programs' GPUs."""
    gc.collect()  # a model and its engine know each other
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    with suppress(OSError, AttributeError):  # glibc alone keeps so much, and has this
        ctypes.CDLL(None).malloc_trim(0)


def _need_bytes(weights: Weights, dtype: torch.dtype) -> int:
    """Weights as they will lie in memory. Converting goes tensor by tensor, so one is there twice for a moment."""
    need = weights.bytes_as(dtype.itemsize) + WORKING_BYTES
    return need if dtype == _STORED[weights.dtype] else need + weights.largest_bytes


def _notice(spec: ModelSpec, device: str, dtype: torch.dtype, weights: Weights) -> str:
    """One line when "auto" could not keep the stored half-precision format, so that nobody wonders about the size."""
    stored = stored_dtype(weights)
    if spec.dtype != "auto" or dtype == stored or weights.bytes_as(4) <= SMALL_BYTES:
        return ""
    return f"The weights are stored as {_name(stored)} and run as {_name(dtype)}, which suits this {device} better."


def _memory_hint(spec: ModelSpec, device: str, dtype: torch.dtype, packed_fits: bool) -> str:
    if device != "cpu":
        return "Choose a smaller model, or --device cpu."
    if packed_fits:
        return "Use --quant int8, which fits."
    if dtype == torch.float32 and spec.dtype == "float32":
        return "Choose a smaller model, or --dtype bfloat16."
    return "Choose a smaller model, or close other programs."


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
