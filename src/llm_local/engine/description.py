"""From a transformers decoder to what the native step runs: structs that point to the model's own weights.

`families` says where a decoder keeps its parts; here they are found, judged and written down. Matrices are used where
they lie; norms and biases become float32, a few kilobytes. Whatever the description would leave out is a reason not to
use it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from llm_local.engine.families import FAMILIES, Family
from llm_local.engine.kv_cache import KVLayout
from llm_local.engine.native_attention import STORED, NativeAttention
from llm_local.engine.native_model import NativeModel
from llm_local.engine.rotary_tables import RotaryTables, read_rotation
from llm_local.kernels.layout import (
    LlmActivation,
    LlmLayer,
    LlmLinear,
    LlmModel,
    LlmNorm,
    LlmWeightKind,
)
from llm_local.kernels.library import Native
from llm_local.loaders.weight_count import count_weights

__all__ = ["NotDescribable", "describe"]

# Packed rows come in strips, which cannot be cut.
STRIP_ROWS: Final = 16

_PLAIN: Final = {torch.float32: LlmWeightKind.F32, torch.bfloat16: LlmWeightKind.BF16}
_ITEM_BYTES: Final = {LlmWeightKind.F32: 4, LlmWeightKind.BF16: 2}
_ACTIVATIONS: Final[dict[LlmActivation, Callable[[torch.Tensor], torch.Tensor]]] = {
    LlmActivation.SILU: functional.silu,
    LlmActivation.GELU_TANH: functools.partial(functional.gelu, approximate="tanh"),
    LlmActivation.GELU: functional.gelu,
    LlmActivation.RELU: functional.relu,
}


class NotDescribable(Exception):
    """Why the native step cannot run a model, in words that end a sentence."""


def describe(model: Any, layout: KVLayout, library: Native) -> NativeModel:
    """What the native step runs in the place of a transformers model, over the same weights.

    Raises:
        NotDescribable: the model is not of a known family, or has something that its family has not.
    """
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        raise NotDescribable(f"{model.config.model_type} is not one of its families")
    return _Describing(model, family, layout, library).result()


class _Describing:
    """One description while it is made."""

    def __init__(self, model: Any, family: Family, layout: KVLayout, library: Native) -> None:
        self._model, self._family, self._layout = model, family, layout
        self._parts = _Parts(model, library)
        self._decoder = model.get_decoder()
        self._layer_types = self._decoder.config.layer_types if family.rope_by_layer_type else [None]
        self._rope_types = sorted(set(self._layer_types), key=str)
        self.rotary = self._read_rotary()

    def result(self) -> NativeModel:
        """The whole decoder."""
        layers = self._describe_layers(self._family, self._layout)
        struct = self._describe(self._model, self._family, self._layout, layers)
        self._parts.check_complete()
        _check_shapes(struct, layers)
        _, weight_bytes = count_weights(self._model)
        return NativeModel(struct, layers, self.rotary, self._layout, weight_bytes, self._parts.kept)

    def _read_rotary(self) -> RotaryTables:
        module = _at(self._decoder, "rotary_emb")
        rotations = [read_rotation(module, layer_type) for layer_type in self._rope_types]
        found = [one for one in rotations if one is not None]
        if len(found) < len(rotations):
            raise NotDescribable(f"{type(module).__name__} is not a rotary embedding it knows")
        return RotaryTables(found, interleaved=self._family.rope_interleaved)

    def _describe(
        self, model: Any, family: Family, layout: KVLayout, layers: ctypes.Array[LlmLayer]
    ) -> LlmModel:
        config, parts, decoder = model.config, self._parts, self._decoder
        first = decoder.layers[0]
        embedding_module = decoder.get_input_embeddings()
        embedding = parts.linear(embedding_module)
        head = parts.linear(model.get_output_embeddings())
        divisor = float(getattr(config, family.logit_divisor)) if family.logit_divisor else 1.0
        softcap = getattr(config, family.logit_softcap) if family.logit_softcap else None
        if not NativeAttention.fits(layout):
            raise NotDescribable(f"its keys and values are {layout.dtype} or of two sizes")
        return LlmModel(
            num_layers=len(decoder.layers),
            hidden=embedding.cols,
            heads=config.num_attention_heads,
            kv_heads=layout.heads,
            head_dim=layout.key_dim,
            intermediate=layers[0].down.cols,
            vocab=head.rows,
            num_ropes=len(self.rotary.structs),
            activation=_activation(_at(first, family.activation)),
            norm_whole_row=int(family.norm_whole_row),
            kv_dtype=STORED[layout.dtype],
            embedding_scale=_factor(decoder, family.embedding_scale) * _own_scale(embedding_module),
            residual_scale=_factor(first, family.residual_scale),
            logit_scale=1.0 / divisor,
            logit_softcap=softcap or 0.0,
            embedding=embedding,
            final_norm=parts.norm(_at(decoder, "norm"), family.norm_offset),
            head=head,
            layers=layers,
            ropes=self.rotary.structs,
        )

    def _describe_layers(self, family: Family, layout: KVLayout) -> ctypes.Array[LlmLayer]:
        layers = self._decoder.layers
        if len(layers) != len(layout.windows):
            raise NotDescribable("it has another number of layers than its configuration says")
        structs = [self._describe_layer(layer, index, family, layout) for index, layer in enumerate(layers)]
        return (LlmLayer * len(structs))(*structs)

    def _describe_layer(self, layer: nn.Module, index: int, family: Family, layout: KVLayout) -> LlmLayer:
        parts, attention = self._parts, _at(layer, "self_attn")
        if not getattr(attention, "is_causal", True):
            raise NotDescribable("its attention looks ahead")
        head_rows = layout.key_dim
        query_rows = self._decoder.config.num_attention_heads * head_rows
        kv_rows = layout.heads * head_rows
        query, key, value = parts.rows_of(layer, family.qkv, (query_rows, kv_rows, kv_rows))
        down = parts.linear(_at(layer, family.down))
        gate, up = parts.rows_of(layer, family.gate_up, (down.cols, down.cols))
        norms = {
            name: parts.norm(_at(layer, path), family.norm_offset)
            for name in (
                "input_norm",
                "attention_out_norm",
                "mlp_norm",
                "mlp_out_norm",
                "query_norm",
                "key_norm",
            )
            if (path := getattr(family, name))
        }
        rotates = not family.rotates or _at(layer, family.rotates)
        return LlmLayer(
            query=query,
            key=key,
            value=value,
            output=parts.linear(_at(layer, family.output)),
            gate=gate,
            up=up,
            down=down,
            rope=self._rope_index(index) if rotates else -1,
            window=layout.windows[index] or 0,
            attention_scale=_at(attention, "scaling"),
            softcap=(_at(layer, family.softcap) if family.softcap else None) or 0.0,
            **norms,
        )

    def _rope_index(self, layer: int) -> int:
        """Which of the rotations turns this layer's queries and keys."""
        return 0 if len(self._layer_types) == 1 else self._rope_types.index(self._layer_types[layer])


def _check_shapes(model: LlmModel, layers: ctypes.Array[LlmLayer]) -> None:
    """The step trusts the description: every matrix must be as large as the others expect it to be."""
    query_rows, kv_rows = model.heads * model.head_dim, model.kv_heads * model.head_dim
    hidden, inner = model.hidden, model.intermediate
    expected = {
        "query": (query_rows, hidden),
        "key": (kv_rows, hidden),
        "value": (kv_rows, hidden),
        "output": (hidden, query_rows),
        "gate": (inner, hidden),
        "up": (inner, hidden),
        "down": (hidden, inner),
    }
    for index, layer in enumerate(layers):
        for name, shape in expected.items():
            matrix = getattr(layer, name)
            if (matrix.rows, matrix.cols) != shape:
                raise NotDescribable(f"the {name} matrix of layer {index} is not {shape}")
        if layer.gate.kind != layer.up.kind:
            raise NotDescribable(f"gate and up of layer {index} have weights of two kinds")
    if model.head.cols != hidden or model.heads % model.kv_heads:
        raise NotDescribable("its heads do not fit its hidden size")


class _Parts:
    """The model's modules as structs, remembering which have been described and what the structs point to."""

    def __init__(self, model: nn.Module, library: Native) -> None:
        self._model = model
        self._library = library
        self._described: set[nn.Module] = set()
        self.kept: list[torch.Tensor] = []

    def norm(self, module: Any, offset: float) -> LlmNorm:
        """A root-mean-square norm; its weight as float32, with `offset` added."""
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if eps is None or list(module._parameters) != ["weight"]:
            raise NotDescribable(f"{type(module).__name__} is not a norm it knows")
        self._described.add(module)
        return LlmNorm(weight=self._keep(module.weight.float() + offset), eps=eps)

    def linear(self, module: Any) -> LlmLinear:
        """A linear layer or an embedding, its weights where they are."""
        self._described.add(module)
        if hasattr(module, "as_struct"):
            struct: LlmLinear = module.as_struct()
            return struct
        weight = module.weight
        known = type(module) in (nn.Linear, nn.Embedding) or hasattr(module, "embed_scale")
        if not known or weight.dtype not in _PLAIN or weight.device.type != "cpu":
            raise NotDescribable(f"{type(module).__name__} of {weight.dtype} is not a layer it knows")
        bias = getattr(module, "bias", None)
        return LlmLinear(
            kind=_PLAIN[weight.dtype],
            rows=weight.shape[0],
            cols=weight.shape[1],
            weights=self._keep(weight),
            bias=None if bias is None else self._keep(bias.float()),
        )

    def rows_of(self, layer: nn.Module, paths: tuple[str, ...], rows: tuple[int, ...]) -> list[LlmLinear]:
        """Matrices with so many `rows`: each at a path of its own, or one behind the other at a single path."""
        if len(paths) > 1:
            return [self.linear(_at(layer, path)) for path in paths]
        whole = self.linear(_at(layer, paths[0]))
        if whole.rows != sum(rows):
            raise NotDescribable(f"{paths[0]} has {whole.rows} rows, not {sum(rows)}")
        starts = [sum(rows[:index]) for index in range(len(rows))]
        return [self._slice(whole, start, count) for start, count in zip(starts, rows, strict=True)]

    def check_complete(self) -> None:
        """Refuse a model with weights that nobody has described: the step would leave them out."""
        for name, module in self._model.named_modules():
            own = any(True for _ in module.parameters(recurse=False)) or hasattr(module, "num_weights")
            if own and module not in self._described:
                raise NotDescribable(f"{name} has weights that its family does not know")

    def _slice(self, whole: LlmLinear, start: int, rows: int) -> LlmLinear:
        """Some rows of a matrix."""
        if whole.kind in _ITEM_BYTES:
            offset = start * whole.cols * _ITEM_BYTES[whole.kind]
        elif start % STRIP_ROWS == 0:
            offset = self._library.packed_bytes(whole.kind, start, whole.cols)
        else:
            raise NotDescribable(f"its packed matrices would be cut at row {start}")
        bias = None if whole.bias is None else whole.bias + start * 4
        return LlmLinear(whole.kind, rows, whole.cols, 0, whole.weights + offset, bias)

    def _keep(self, tensor: torch.Tensor) -> int:
        kept = tensor.detach().contiguous()
        self.kept.append(kept)
        return kept.data_ptr()


def _at(owner: Any, path: str) -> Any:
    """The attribute at a dotted path."""
    for name in path.split("."):
        if not hasattr(owner, name):
            raise NotDescribable(f"{type(owner).__name__} has no {name}")
        owner = getattr(owner, name)
    return owner


def _factor(owner: Any, path: str) -> float:
    """A factor of the model; 1 without a path."""
    return float(_at(owner, path)) if path else 1.0


def _own_scale(embedding: Any) -> float:
    """What an embedding multiplies its rows with, as exact as its own number format has it."""
    if hasattr(embedding, "embed_scale"):
        return float(embedding.embed_scale.to(embedding.weight.dtype))
    return float(getattr(embedding, "scale", 1.0))


def _activation(function: Callable[[torch.Tensor], torch.Tensor]) -> int:
    """Which of the library's activations this one is, by its values."""
    points = torch.linspace(-8, 8, 257)
    for kind, known in _ACTIVATIONS.items():
        if torch.allclose(function(points), known(points), rtol=0, atol=2e-6):
            return kind
    raise NotDescribable(f"{type(function).__name__} is not an activation it knows")
