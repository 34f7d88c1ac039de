"""Which model, in which form: the values that name and describe weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "DeviceName",
    "DtypeName",
    "EngineOptions",
    "Kernels",
    "ModelInfo",
    "ModelSpec",
    "PackedBits",
    "Quantization",
    "Speculation",
]

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DtypeName = Literal["auto", "float16", "bfloat16", "float32"]
Quantization = Literal["auto", "int8", "int4", "none"]
PackedBits = Literal["int8", "int4", "none"]
"""What "auto" comes out as."""
Kernels = Literal["auto", "linears", "off"]
Speculation = Literal["off", "ngram"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What to load and how.

    `ref` is `starter`, a directory, or `org/name` on the hub; `revision` a branch, tag or commit of it.
    `trust_remote_code` is asked for per model, never globally. Quantized weights are kept packed on the disk, up to
    `packed_cache_bytes` for all models (0: not at all). `kernels` "off" means stock torch operators.
    """

    ref: str
    revision: str | None = None
    dtype: DtypeName = "auto"
    device: DeviceName = "auto"
    quantization: Quantization = "auto"
    context_length: int | None = None
    trust_remote_code: bool = False
    packed_cache_bytes: int = 20_000 << 20
    kernels: Kernels = "auto"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine works, beside what it is asked to generate. None of it changes what comes out.

    - `kv_cache_bytes`: memory for keys and values of all sequences; None means half of what is free once the model
      is loaded.
    - `reserved_bytes`: of what is free, so much belongs to others, and is not shared out.
    - `prefix_cache`: finished requests may keep half of that, for requests that begin like them.
    - `speculation`: how tokens are guessed ahead.
    - `kernels`: what the native library computes on a CPU: "auto" the whole step where it knows the model's family,
      else linear layers and attention; "linears" those two always; "off" nothing.
    """

    kv_cache_bytes: int | None = None
    prefix_cache: bool = True
    speculation: Speculation = "off"
    kernels: Kernels = "auto"
    reserved_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded: facts, measured or read from the files, never guessed.

    `weight_bytes` is what the weights take in memory, packed where they are; `dtype` is what the rest computes in.
    """

    ref: str
    path: str
    architecture: str
    num_parameters: int
    weight_bytes: int
    dtype: str
    device: str
    context_length: int
    vocab_size: int
    has_chat_template: bool
    quantization: PackedBits = "none"
