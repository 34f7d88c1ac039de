"""A described decoder as data and back: its structs, with places in stored memory for pointers.

The weights themselves stay where they are, in a packed file or in the model's own. What was computed beside them
(norms in float32, and small matrices) is kept as bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ctypes import Structure, c_float, c_void_p
from dataclasses import asdict
from typing import Any, Final

import torch

from llm_local.engine.kv_cache import KVLayout
from llm_local.engine.native_model import NativeModel
from llm_local.engine.rotary_tables import RotaryTables, Rotation
from llm_local.kernels.layout import LlmLayer, LlmModel
from llm_local.loaders.decoder_image import DecoderImage, Span

__all__ = ["MAX_KEPT_BYTES", "from_image", "to_image"]

# What is computed at load is norms and biases; a model with more than this is better read anew.
MAX_KEPT_BYTES: Final = 64 << 20
_ALIGNMENT: Final = 64

_Place = tuple[int, int]  # a region, and an offset in bytes


def to_image(model: NativeModel, spans: Sequence[Span]) -> tuple[dict[str, Any], torch.Tensor] | None:
    """The facts of a decoder, and the bytes that lie in none of `spans`; None where those are too many."""
    places = _Places(spans, [one for one in model.kept if isinstance(one, torch.Tensor)])
    try:
        facts = {
            "model": _numbers(model.struct, places.of),
            "layers": [_numbers(layer, places.of) for layer in model.layers],
            "rotations": [asdict(one) for one in model.rotary.rotations],
            "interleaved": model.rotary.interleaved,
            "layout": asdict(model.layout) | {"dtype": str(model.layout.dtype).removeprefix("torch.")},
            "weight_bytes": model.weight_bytes,
        }
    except KeyError:
        return None
    return facts, places.kept_bytes()


def from_image(image: DecoderImage) -> NativeModel:
    """The decoder that an image is of. The image's regions live as long as it does.

    Raises:
        IndexError: a pointer leaves its region.
    """

    def address(place: Sequence[int]) -> int:
        region, offset = place
        memory = image.regions[region]
        if not 0 <= offset < memory.numel():
            raise IndexError(f"region {region} has no byte {offset}")
        return memory.data_ptr() + offset

    facts = image.facts
    layers = (LlmLayer * len(facts["layers"]))(*(_struct(LlmLayer, one, address) for one in facts["layers"]))
    rotary = RotaryTables(
        [Rotation(tuple(one["inv_freq"]), one["scaling"]) for one in facts["rotations"]],
        interleaved=facts["interleaved"],
    )
    struct = _struct(LlmModel, facts["model"], address)
    struct.layers, struct.ropes = layers, rotary.structs
    shape = facts["layout"]
    layout = KVLayout(**shape | {"dtype": getattr(torch, shape["dtype"]), "windows": tuple(shape["windows"])})
    return NativeModel(struct, layers, rotary, layout, facts["weight_bytes"], image.regions)


class _Places:
    """From addresses to places: in a span, else in a tensor that is kept from here on."""

    def __init__(self, spans: Sequence[Span], tensors: Sequence[torch.Tensor]) -> None:
        self._spans = spans
        self._tensors = {tensor.data_ptr(): tensor for tensor in tensors}
        self._kept: dict[int, int] = {}  # address of a tensor, offset of its copy
        self._num_bytes = 0

    def of(self, address: int) -> _Place:
        """Raises KeyError where nobody knows what lies there, or it is too much."""
        for span in self._spans:
            if span.begin <= address < span.begin + span.num_bytes:
                return span.region, address - span.begin + span.offset
        begin = max((one for one in self._tensors if one <= address), default=0)
        tensor = self._tensors[begin]
        if address >= begin + tensor.nbytes:
            raise KeyError(address)
        if begin not in self._kept:
            self._kept[begin] = self._num_bytes
            self._num_bytes += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
            if self._num_bytes > MAX_KEPT_BYTES:
                raise KeyError(address)
        return -1, self._kept[begin] + address - begin  # the last region

    def kept_bytes(self) -> torch.Tensor:
        """All that is kept, uint8, each tensor at a multiple of 64 bytes."""
        kept = torch.zeros(self._num_bytes, dtype=torch.uint8)
        for begin, offset in self._kept.items():
            tensor = self._tensors[begin]
            kept[offset : offset + tensor.nbytes] = tensor.view(torch.uint8).reshape(-1)
        return kept


def _numbers(struct: Structure, place: Callable[[int], _Place]) -> dict[str, Any]:
    """A struct as JSON; pointers to other structs are left out."""
    found: dict[str, Any] = {}
    for name, kind, *_ in struct._fields_:
        value = getattr(struct, name)
        if isinstance(value, Structure):
            found[name] = _numbers(value, place)
        elif kind is c_void_p:
            found[name] = None if value is None else place(value)
        elif isinstance(value, int | float):
            found[name] = value
    return found


def _struct(kind: type[Any], facts: Mapping[str, Any], address: Callable[[Sequence[int]], int]) -> Any:
    struct = kind()
    for name, field in kind._fields_:
        if name not in facts:
            continue
        value = facts[name]
        if field is c_void_p:
            setattr(struct, name, None if value is None else address(value))
        elif issubclass(field, Structure):
            setattr(struct, name, _struct(field, value, address))
        else:
            setattr(struct, name, float(value) if field is c_float else value)
    return struct
