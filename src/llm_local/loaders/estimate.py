"""How much memory a model would take and read, from the headers of its weights and its configuration. Needs no torch.

What the loader decides when the model is here, this decides before: the same rules, on a model that is still elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from llm_local.loaders.host import SMALL_BYTES, WORKING_BYTES, computes_bfloat16
from llm_local.loaders.quantization import choose_quantization, estimated_bytes
from llm_local.loaders.safetensors import Tensor, Weights
from llm_local.specs import ModelSpec, PackedBits

__all__ = ["Form", "best_form", "cpu_form", "form_of", "forms", "kv_bytes_per_token"]

_PLAIN_BYTES: Final[Mapping[str, int]] = {"float32": 4, "bfloat16": 2, "float16": 2}
_STORED: Final = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_EXPERT: Final = re.compile(r"(^|\.)experts?(\.|$)")
_INPUT_EMBEDDING: Final = re.compile(r"(^|\.)(embed_tokens|wte|wpe|word_embeddings|embed_in)(\.|$)")
_OUTPUT_HEAD: Final = re.compile(r"(^|\.)(lm_head|embed_out|output_layer)\.weight$")
_LAYERS: Final = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HEADS: Final = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_WIDTH: Final = ("hidden_size", "n_embd", "d_model")
_EXPERTS: Final = ("num_local_experts", "num_experts", "n_routed_experts")
_ACTIVE_EXPERTS: Final = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")


@dataclass(frozen=True, slots=True)
class Form:
    """The weights in memory as float32, bfloat16, float16, int8 or int4.

    - `need_bytes`: what loading and running takes, `kv_bytes` of it for keys and values.
    - `read_bytes`: what each new token reads of the weights.
    """

    name: str
    weight_bytes: int
    need_bytes: int
    kv_bytes: int
    read_bytes: int


def cpu_form(spec: ModelSpec, weights: Weights, no_native: Callable[[], str], have_bytes: int) -> str:
    """The form that loading would choose on a CPU with `have_bytes` of free memory.

    Raises:
        InvalidRequest: the quantization is none of the choices.
    """
    bits = choose_quantization(spec, "cpu", weights, no_native).bits
    if bits != "none":
        return bits
    if spec.dtype != "auto":
        return spec.dtype
    stored = _STORED[weights.dtype]
    if stored != "float32" and weights.bytes_as(4) > SMALL_BYTES and computes_bfloat16():
        return "bfloat16"
    # slower to compute on this machine, but it runs
    halved = _need(weights, "float32") > have_bytes >= _need(weights, "bfloat16")
    return "bfloat16" if halved else "float32"


def forms(weights: Weights, config: Mapping[str, Any], context_length: int) -> tuple[Form, ...]:
    """Every form the weights can have, with room for `context_length` tokens; the largest first."""
    return tuple(
        form_of(weights, config, name, context_length) for name in ("float32", "bfloat16", "int8", "int4")
    )


def best_form(chosen: Form, others: tuple[Form, ...], have_bytes: int) -> Form | None:
    """What to run: what would be chosen, where it fits, else the most exact that does; None where nothing fits."""
    if chosen.need_bytes <= have_bytes:
        return chosen
    return next((form for form in others if form.need_bytes <= have_bytes), None)


def kv_bytes_per_token(config: Mapping[str, Any], form: str) -> int:
    """Memory for keys and values of one token; 0 where the configuration does not tell, or there are none.

    A sliding window would need less; what is counted is a layer that sees everything.
    """
    inner = config.get("text_config")
    values = {**config, **inner} if isinstance(inner, dict) else config
    layers, heads = _number(values, _LAYERS), _number(values, _HEADS)
    if not layers or not heads:
        return 0
    head_dim = _number(values, ("head_dim",)) or _number(values, _WIDTH) // heads
    key_dim = _number(values, ("qk_head_dim",)) or head_dim
    if rotated := _number(values, ("qk_rope_head_dim",)):
        key_dim = rotated + _number(values, ("qk_nope_head_dim",))
    value_dim = _number(values, ("v_head_dim",)) or head_dim
    kv_heads = _number(values, ("num_key_value_heads",)) or heads
    # beside packed weights they are kept as bfloat16
    return layers * kv_heads * (key_dim + value_dim) * _PLAIN_BYTES.get(form, 2)


def form_of(weights: Weights, config: Mapping[str, Any], name: str, context_length: int) -> Form:
    """One of them, by its name; float16 too."""
    kv_bytes = kv_bytes_per_token(config, name) * context_length
    return Form(
        name,
        _weight_bytes(weights, name),
        _need(weights, name) + kv_bytes,
        kv_bytes,
        _read_bytes(weights, config, name),
    )


def _weight_bytes(weights: Weights, form: str) -> int:
    if form in _PLAIN_BYTES:
        return weights.bytes_as(_PLAIN_BYTES[form])
    return estimated_bytes(weights, _bits(form))


def _need(weights: Weights, form: str) -> int:
    """As the loader counts: converting goes tensor by tensor, so one is there twice for a moment."""
    converted = form in _PLAIN_BYTES and form != _STORED[weights.dtype]
    return _weight_bytes(weights, form) + WORKING_BYTES + (weights.largest_bytes if converted else 0)


def _read_bytes(weights: Weights, config: Mapping[str, Any], form: str) -> int:
    """Of a table of embeddings one row is read, unless it is the output head too; of experts, those that are active."""
    inner = config.get("text_config")
    values = {**config, **inner} if isinstance(inner, dict) else config
    experts, active = _number(values, _EXPERTS), _number(values, _ACTIVE_EXPERTS)
    share = active / experts if 0 < active <= experts else 1.0
    has_head = any(_OUTPUT_HEAD.search(name) for name in weights.tensors)
    total = 0.0
    for name, tensor in weights.tensors.items():
        if has_head and _INPUT_EMBEDDING.search(name):
            continue
        total += _weight_bytes(_only(name, tensor), form) * (share if _EXPERT.search(name) else 1.0)
    return math.ceil(total)


def _only(name: str, tensor: Tensor) -> Weights:
    return Weights((), {name: tensor})


def _number(values: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """The first of `names` that is a count; 0 where none is."""
    found = (values.get(name) for name in names)
    return next((one for one in found if type(one) is int and 0 < one < 10**7), 0)


def _bits(form: str) -> PackedBits:
    return "int8" if form == "int8" else "int4"
