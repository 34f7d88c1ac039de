"""What becomes of each tensor of a model whose weights are packed, and the packing, a few rows at a time.

The weights of linear layers go to 8 or 4 bits; input embedding and output head to 8 bits always, since their errors
meet every token. All else becomes float32: norms and biases, which are small, and what no kernel of ours computes
(stacked experts, layers of other classes). What decides discretely is left alone too: a router that errs chooses
another expert.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from llm_local.errors import EngineError
from llm_local.kernels.layout import LlmWeightKind
from llm_local.kernels.linear import required_native
from llm_local.loaders.finite_weights import is_finite
from llm_local.loaders.packed_sizes import packed_bytes
from llm_local.specs import PackedBits

__all__ = ["KINDS", "BadWeights", "Layout", "Part", "Source", "pack_into", "plan"]

KINDS: Final = {"int8": LlmWeightKind.Q8, "int4": LlmWeightKind.Q4}
_STRIP_ROWS: Final = 16
_ALIGNMENT: Final = 64
# How much of a matrix is read at a time: what packing takes beside its result.
_PIECE_BYTES: Final = 16 << 20
# Routers, gates of shared experts, and the step sizes that mamba's own code multiplies with by hand.
_KEPT: Final = re.compile(r"(^|\.)(router|gate|shared_expert_gate|dt_proj)(\.|$)")
_SCALED_EMBEDDING: Final = "TextScaledWordEmbedding"


class BadWeights(Exception):
    """A tensor has values that are infinite, not a number, or too large to be packed; the text is its name."""


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of a packed model: `names` are all places of the model that share it.

    `format` is int8 or int4 (packed), else a number format of torch, such as float32.
    """

    names: tuple[str, ...]
    format: str
    shape: tuple[int, ...]

    @property
    def is_packed(self) -> bool:
        """True at 8 or 4 bits."""
        return self.format in KINDS

    @property
    def num_bytes(self) -> int:
        """Its size, without the gap to the next one."""
        if self.is_packed:
            return packed_bytes(self.format, *self.shape)
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def dtype(self) -> torch.dtype:
        """The number format of a tensor that is not packed."""
        found = getattr(torch, self.format)
        if not isinstance(found, torch.dtype):
            raise ValueError(self.format)
        return found


@dataclass(frozen=True, slots=True)
class Layout:
    """All parts behind one another, each at a multiple of 64 bytes."""

    parts: tuple[Part, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each part begins."""
        found, at = [], 0
        for part in self.parts:
            found.append(at)
            at += _padded(part.num_bytes)
        return tuple(found)

    @property
    def num_bytes(self) -> int:
        """Where the last one ends, padded."""
        return sum(_padded(part.num_bytes) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Source:
    """A part and where its numbers come from: `rows(begin, end)` along the first dimension of `shape`."""

    part: Part
    rows: Callable[[int, int], torch.Tensor]


def plan(model: Any, bits: PackedBits) -> list[Source]:
    """Every parameter and every stored buffer of a transformers model, and what it becomes."""
    shared: dict[int, list[tuple[str, str, nn.Module]]] = {}
    tensors: dict[int, torch.Tensor] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        stored = {name: one for name, one in module._parameters.items() if one is not None}
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                stored[name] = buffer
        for name, tensor in stored.items():
            tensors[id(tensor)] = tensor
            shared.setdefault(id(tensor), []).append((path, name, module))
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return [_source(tensors[key], users, ends, bits) for key, users in shared.items()]


def pack_into(
    sources: Iterable[Source],
    write: Callable[[int, torch.Tensor], None],
    release: Callable[[torch.Tensor], None] = lambda tensor: None,
    report: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Pack `sources` in the order of their layout.

    `write(offset, bytes)` takes a piece (uint8, good until the next one), `release` what was read for it, and `report`
    the bytes read since the last call.

    Raises:
        BadWeights: a weight is infinite, not a number, or too large.
    """
    offset = 0
    for source in sources:
        at = offset
        for begin, end in _pieces(source.part):
            rows = source.rows(begin, end)
            piece = _packed(source.part, rows)
            write(at, piece)
            at += piece.numel()
            release(rows)
            report(rows.nbytes)
        offset += _padded(source.part.num_bytes)


def _source(
    tensor: torch.Tensor,
    users: Sequence[tuple[str, str, nn.Module]],
    ends: tuple[nn.Module | None, nn.Module | None],
    bits: PackedBits,
) -> Source:
    names = tuple(f"{path}.{name}".lstrip(".") for path, name, _ in users)
    if all(_takes_packed(path, name, module, ends) for path, name, module in users):
        at_an_end = any(module in ends for _, _, module in users)
        form = "int8" if at_an_end else str(bits)
    else:
        form = "float32" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return Source(Part(names, form, tuple(tensor.shape)), lambda begin, end: _rows(tensor, begin, end))


def _takes_packed(
    path: str, name: str, module: nn.Module, ends: tuple[nn.Module | None, nn.Module | None]
) -> bool:
    """True where a module of ours can take the place of this one. A subclass may compute what we do not know."""
    if name != "weight":
        return False
    if module is ends[0]:
        plain = type(module) is nn.Embedding and module.max_norm is None
        return plain or type(module).__name__.endswith(_SCALED_EMBEDDING)
    return type(module) is nn.Linear and (module is ends[1] or not _KEPT.search(path))


def _rows(tensor: torch.Tensor, begin: int, end: int) -> torch.Tensor:
    return tensor.detach() if tensor.ndim == 0 else tensor.detach()[begin:end]


def _pieces(part: Part) -> Iterator[tuple[int, int]]:
    if not part.shape or not math.prod(part.shape):
        yield (0, part.shape[0] if part.shape else 1)
        return
    row_bytes = 4 * math.prod(part.shape[1:])
    step = max(_PIECE_BYTES // row_bytes // _STRIP_ROWS, 1) * _STRIP_ROWS  # whole strips follow one another
    for begin in range(0, part.shape[0], step):
        yield (begin, min(begin + step, part.shape[0]))


def _packed(part: Part, rows: torch.Tensor) -> torch.Tensor:
    """The bytes of some rows as they are stored."""
    if not part.is_packed:
        if not is_finite(rows):
            raise BadWeights(part.names[0])
        return rows.to(part.dtype).contiguous().reshape(-1).view(torch.uint8)
    if rows.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        rows = rows.float()
    packed = torch.empty(packed_bytes(part.format, *rows.shape), dtype=torch.uint8)
    try:
        finite = required_native().pack(KINDS[part.format], rows, packed)
    except EngineError as error:  # no half-precision number can be its scale
        raise BadWeights(part.names[0]) from error
    if not finite:
        raise BadWeights(part.names[0])
    return packed


def _padded(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
