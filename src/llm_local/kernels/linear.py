"""Linear layers and embeddings over weights in the native library's formats, in the place of torch's modules.

    PackedLinear      8 or 4 bits a weight, packed        quantized models
    PackedEmbedding   rows of an 8-bit table              quantized models; the head may be over the same table
    NativeLinear      torch's own parameter, in place     float32 and bfloat16 models

All compute on the CPU. What is not one of these in a quantized model (norms, biases, routers) is float32, and so are
its activations; its keys and values are bfloat16: `kv_dtype`.

A packed module's `weight` has the shape and the number format that code around a linear layer looks at, and no numbers
(`facts.WeightFacts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import nn

from llm_local.errors import EngineError
from llm_local.kernels.facts import WeightFacts
from llm_local.kernels.layout import LlmLinear, LlmWeightKind
from llm_local.kernels.library import Native, native, status
from llm_local.kernels.siblings import Siblings, join_siblings, part_siblings

__all__ = [
    "NativeLinear",
    "PackedEmbedding",
    "PackedLinear",
    "adopt_linears",
    "is_quantized",
    "kv_dtype",
    "release_linears",
    "required_native",
]

_GROUP: Final = 32  # inputs that share a scale
_LANES: Final = 16  # outputs of a strip
_Q8_QUANT_BYTES: Final = 1024  # of a block, before its scales
_Q8_BLOCK_BYTES: Final = 1088
_Q8_ZERO: Final = 128


class _StructuredLinear(nn.Module):
    """What all have in common: a C struct over tensors that stay where they are."""

    in_features: int
    out_features: int

    def __init__(self) -> None:
        super().__init__()
        self._struct: LlmLinear | None = None
        self.siblings: Siblings | None = None
        """Layers that are computed with this one, while they are joined."""

    def as_struct(self) -> LlmLinear:
        """The layer for the native library; its pointers are good as long as this module lives unchanged."""
        if self._struct is None:
            self._struct = self._describe()
        return self._struct

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., in_features]` to `[..., out_features]`, in the number format of `x`."""
        return _outputs([self], x)[0] if self.siblings is None else self.siblings.output(self, x)

    def _describe(self) -> LlmLinear:
        raise NotImplementedError

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        self._struct = None  # the tensors may move
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: without pointers, which are to this layer's tensors."""
        return self.__dict__ | {"_struct": None}

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"{self.in_features}, {self.out_features}"


def _outputs(layers: Sequence[_StructuredLinear], x: torch.Tensor) -> list[torch.Tensor]:
    """What layers of one input make of `x`."""
    tokens = x.reshape(-1, x.shape[-1])
    if x.dtype not in _PLAIN:
        tokens = tokens.float()
    tokens = tokens.contiguous()
    outputs = [tokens.new_empty(len(tokens), layer.out_features) for layer in layers]
    required_native().linear([layer.as_struct() for layer in layers], tokens, outputs)
    return [output.view(*x.shape[:-1], output.shape[-1]).to(x.dtype) for output in outputs]


class _Packed(nn.Module):
    """What code around a layer may ask of packed weights."""

    rows: int
    cols: int

    @property
    def weight(self) -> WeightFacts:
        """Shape and number format, without the numbers."""
        return WeightFacts(torch.Size((self.rows, self.cols)))

    @property
    def num_weights(self) -> int:
        """Numbers that the packed bytes stand for."""
        return self.rows * self.cols


class PackedLinear(_Packed, _StructuredLinear):
    """y = x W^T + b with a packed W. `packed`: uint8, 64-byte aligned, as `Native.pack` writes it; `bias`: float32."""

    packed: torch.Tensor

    def __init__(
        self,
        kind: LlmWeightKind,
        packed: torch.Tensor,
        rows: int,
        cols: int,
        bias: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.rows, self.cols = self.out_features, self.in_features = rows, cols
        self.register_buffer("packed", packed, persistent=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def _describe(self) -> LlmLinear:
        return _struct(self.kind, self.rows, self.cols, self.packed, self.bias)


class PackedEmbedding(_Packed):
    """Rows of a packed 8-bit table, times `scale`, as float32. `packed` may be the head's own tensor."""

    packed: torch.Tensor

    def __init__(self, packed: torch.Tensor, rows: int, cols: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.kind = LlmWeightKind.Q8
        self.rows, self.cols = self.num_embeddings, self.embedding_dim = rows, cols
        self.scale = scale
        self.register_buffer("packed", packed, persistent=False)

    def as_struct(self) -> LlmLinear:
        """The table for the native library."""
        return _struct(self.kind, self.rows, self.cols, self.packed, None)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """`[...]` ids to `[..., embedding_dim]`: the numbers that the native library looks up, to the bit.

        Raises:
            EngineError: an id outside the table, whose last strip is padded with rows that mean nothing.
        """
        ids = token_ids.reshape(-1)
        if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < self.rows):
            raise EngineError(f"A token id lies outside the embedding of {self.rows} rows.")
        strip, lane = ids // _LANES, ids % _LANES
        blocks = self.packed.view(-1, -(-self.cols // (2 * _GROUP)), _Q8_BLOCK_BYTES)
        quants = blocks[..., :_Q8_QUANT_BYTES].unflatten(-1, (2, _GROUP // 4, _LANES, 4))
        scales = blocks[..., _Q8_QUANT_BYTES:].view(torch.float16).unflatten(-1, (2, _LANES))
        # advanced indices with slices between them go first: [ids, blocks, 2, 8, 4] and [ids, blocks, 2]
        steps = quants[strip, :, :, :, lane].float().sub_(_Q8_ZERO).flatten(-2)
        rows = steps.mul_(scales[strip, :, :, lane].float().unsqueeze(-1)).flatten(1)[:, : self.cols]
        rows = rows if self.scale == 1.0 else rows * self.scale
        return rows.reshape(*token_ids.shape, self.cols)

    def extra_repr(self) -> str:
        """Shown by `print(model)`."""
        return f"{self.rows}, {self.cols}"


class NativeLinear(_StructuredLinear):
    """A torch linear layer of float32 or bfloat16 computed by the native library: same parameters, no copy."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._float_bias: torch.Tensor | None = None

    @property
    def kind(self) -> LlmWeightKind:
        """F32 or BF16."""
        return _PLAIN[self.weight.dtype]

    def _describe(self) -> LlmLinear:
        self._float_bias = None if self.bias is None else self.bias.detach().float().contiguous()
        return _struct(self.kind, self.out_features, self.in_features, self.weight, self._float_bias)


_PLAIN: Final = {torch.float32: LlmWeightKind.F32, torch.bfloat16: LlmWeightKind.BF16}


def adopt_linears(model: nn.Module) -> int:
    """Give every plain torch linear layer of a CPU model to the native library; returns how many.

    Native layers of one input, packed ones too, are computed together from here on.
    """
    adopted = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.weight.dtype in _PLAIN and child.weight.is_contiguous():
                setattr(parent, name, NativeLinear(child))
                adopted += 1
    join_siblings(model, _StructuredLinear, _outputs)
    return adopted


def release_linears(model: nn.Module) -> int:
    """Undo `adopt_linears`: torch's own layers again, over the same parameters; returns how many."""
    part_siblings(model)
    released = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, NativeLinear):
                linear = nn.Linear(child.in_features, child.out_features, bias=False, device="meta")
                linear.weight, linear.bias = child.weight, child.bias
                setattr(parent, name, linear)
                released += 1
    return released


def is_quantized(model: nn.Module) -> bool:
    """True when some weights of the model are packed to 8 or 4 bits."""
    return any(hasattr(module, "num_weights") for module in model.modules())


def kv_dtype(model: Any) -> torch.dtype:
    """The number format that keys and values of a model are stored in."""
    return torch.bfloat16 if is_quantized(model) else model.dtype


def required_native() -> Native:
    """The native library, for those who are only used where there is one.

    Raises:
        EngineError: there is none; the reason is in the message.
    """
    library = native()
    if library is None:
        raise EngineError(f"There is no native library: {status().reason}.")
    return library


def _struct(
    kind: LlmWeightKind, rows: int, cols: int, weights: torch.Tensor, bias: torch.Tensor | None
) -> LlmLinear:
    return LlmLinear(kind, rows, cols, 0, weights.data_ptr(), None if bias is None else bias.data_ptr())
