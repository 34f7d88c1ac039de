"""Whether the weights of a model are packed to fewer bits, and how large they are then, from their headers alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, get_args

from llm_local.errors import InvalidRequest
from llm_local.loaders.packed_sizes import packed_bytes
from llm_local.loaders.safetensors import Tensor, Weights
from llm_local.specs import ModelSpec, PackedBits, Quantization

__all__ = ["SMALL_BYTES", "Choice", "choose_quantization", "describe", "estimated_bytes"]

# A smaller model answers at hundreds of tokens a second as it is (the starter: 500 to 700 in float32, 2,300 at 8 bits,
# the same start): what people get from it is that it is exact.
SMALL_BYTES: Final = 64 << 20
# Packing is worth its loss of precision when it saves at least this share.
_SAVING: Final = 0.25
_EXPERT: Final = re.compile(r"(^|\.)experts?(\.|$)")
_AT_AN_END: Final = re.compile(r"(^|\.|_)(embed\w*|wte|lm_head|word_embeddings|output|head)(\.|$)")


@dataclass(frozen=True, slots=True)
class Choice:
    """What "auto" comes out as; `why` says in a line for people why not what they may expect, or nothing."""

    bits: PackedBits
    why: str = ""


def choose_quantization(
    spec: ModelSpec, device: str, weights: Weights, no_native: Callable[[], str]
) -> Choice:
    """The quantization of `weights`; `no_native` tells why there are no native kernels, "" where there are.

    Raises:
        InvalidRequest: a word that is none of the choices, or packed weights on a GPU.
    """
    asked = spec.quantization
    if asked not in get_args(Quantization):
        raise InvalidRequest(
            f"The quantization is {asked!r}, but must be one of {', '.join(get_args(Quantization))}.",
            param="quantization",
        )
    if asked == "none" or (asked == "auto" and (device != "cpu" or spec.dtype != "auto")):
        return Choice("none")
    if asked != "auto":
        return _explicit(asked, spec, device, no_native())
    stored = weights.num_bytes
    if stored < SMALL_BYTES or estimated_bytes(weights, "int8") > (1 - _SAVING) * stored:
        return Choice("none")
    reason = "" if spec.kernels == "off" else no_native()
    if reason:
        return Choice("none", f"The weights are not packed to 8 bits, which needs native code: {reason}.")
    if spec.kernels == "off":
        return Choice("none")
    return Choice("int8")


def estimated_bytes(weights: Weights, bits: PackedBits) -> int:
    """Memory for the weights when packed: what is a matrix by its header counts as one, experts as float32."""
    return sum(_estimate(name, tensor, bits) for name, tensor in weights.tensors.items())


def describe(bits: PackedBits, packed: int, stored: int) -> str:
    """The choice of "auto" and its cost, in one line."""
    return (
        f"{bits.removeprefix('int')}-bit weights ({_size(packed)} instead of {_size(stored)}); "
        "--quant none for the original."
    )


def _explicit(asked: PackedBits, spec: ModelSpec, device: str, no_native: str) -> Choice:
    if device != "cpu":
        raise InvalidRequest(
            f"{asked} weights run on the CPU, but the device is {device}.",
            "Use --device cpu, or --quant none.",
            param="quantization",
        )
    notes = []
    if no_native:
        notes.append(f"{asked} weights run on torch's own operators, without native code: {no_native}.")
    if spec.dtype not in ("auto", "float32"):
        notes.append(
            f"Beside {asked} weights the model computes in float32; --dtype {spec.dtype} is not used."
        )
    return Choice(asked, " ".join(notes))


def _estimate(name: str, tensor: Tensor, bits: PackedBits) -> int:
    if len(tensor.shape) != 2 or not name.endswith("weight") or _EXPERT.search(name):
        return 4 * math.prod(tensor.shape)
    return packed_bytes("int8" if _AT_AN_END.search(name) else bits, *tensor.shape)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
