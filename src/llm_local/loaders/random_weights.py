"""A model of a given shape with random weights: as fast and as large as the real one, and talking nonsense.

Without a tokenizer and without a file. Filled from one small random block, because drawing half a billion normal
numbers takes longer than what is measured afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm_local.errors import InsufficientMemory, InvalidRequest
from llm_local.loaders.architectures import choose_class, config_class
from llm_local.loaders.configuration import ModelConfig, context_length
from llm_local.loaders.devices import available_bytes, resolve_device
from llm_local.loaders.host import computes_bfloat16
from llm_local.loaders.packed_file import in_memory
from llm_local.loaders.packed_model import assemble
from llm_local.loaders.packing import Layout, Part, Source, pack_into, plan
from llm_local.loaders.weight_count import count_weights
from llm_local.specs import DeviceName, DtypeName, ModelInfo, PackedBits

__all__ = ["random_model"]

# Prime, so that the rows of no matrix repeat.
_BLOCK_NUMBERS: Final = 1_000_003
# The usual spread at the start of a training: activations stay near one through any number of layers.
_SPREAD: Final = 0.02


def random_model(
    name: str,
    shape: Mapping[str, Any],
    *,
    dtype: DtypeName = "auto",
    device: DeviceName = "auto",
    bits: PackedBits = "none",
) -> tuple[PreTrainedModel, ModelInfo]:
    """A model ready for inference, the same at every call, and the facts about it.

    `shape` is a configuration as in `config.json`. "auto" takes bfloat16 where the device computes it, else float32.
    `bits` packs the weights as for a real model, by native code; the rest is float32 then.

    Raises:
        UnsupportedTask: the shape is of no model that generates text.
        InsufficientMemory: it does not fit.
        InvalidRequest: this machine does not have the device, or packed weights do not run on it.
    """
    config = ModelConfig(shape, has_own_code=False)
    cls = choose_class(config)
    place = resolve_device(device)
    if bits != "none" and place != "cpu":
        raise InvalidRequest(f"{bits} weights run on the CPU.", "Use --device cpu.", param="quantization")
    made = config_class(config.model_type).from_dict(dict(shape))
    with init_empty_weights(include_buffers=False):  # buffers are tables computed from the shape: keep them
        model = AutoModelForCausalLM.from_config(made, dtype=_number_format(dtype, place))
    model.tie_weights()  # moving to no memory has parted what shapes share
    block = _random_block()
    sources = [] if bits == "none" else [_random_source(one.part, block) for one in plan(model, bits)]
    layout = Layout(tuple(one.part for one in sources))
    weight_bytes = count_weights(model)[1] if bits == "none" else layout.num_bytes
    _require_memory(name, weight_bytes, place)
    if bits == "none":
        _fill(model, block.to(place))
    else:
        model = assemble(cls, made, in_memory(layout, lambda write: pack_into(sources, write)))
    num_parameters, weight_bytes = count_weights(model)
    info = ModelInfo(
        ref=name,
        path="",
        architecture=type(model).__name__,
        num_parameters=num_parameters,
        weight_bytes=weight_bytes,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        context_length=context_length(shape, None),
        vocab_size=int(model.get_output_embeddings().weight.shape[0]),
        has_chat_template=False,
        quantization=bits,
    )
    return model.eval(), info


def _require_memory(name: str, weight_bytes: int, place: str) -> None:
    have_bytes = available_bytes(place)
    if weight_bytes > have_bytes:
        raise InsufficientMemory(
            f"{name} needs {weight_bytes / 1e9:.1f} GB of memory, but {have_bytes / 1e9:.1f} GB are free on {place}.",
            "Choose a smaller shape, or close other programs.",
            need_bytes=weight_bytes,
            have_bytes=have_bytes,
        )


def _number_format(dtype: DtypeName, device: str) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device != "cpu" or computes_bfloat16() else torch.float32
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]


def _random_source(part: Part, block: torch.Tensor) -> Source:
    """Rows of the same numbers that `_fill` would write."""
    width = math.prod(part.shape[1:])

    def rows(begin: int, end: int) -> torch.Tensor:
        if not part.is_packed and len(part.shape) < 2:
            return torch.full((end - begin,), 0.0 if "bias" in part.names[0].rpartition(".")[2] else 1.0)
        first = begin * width % len(block)
        pieces = [block[first:]]
        missing = (end - begin) * width - len(pieces[0])
        while missing > 0:
            pieces.append(block[:missing])
            missing -= len(pieces[-1])
        return torch.cat(pieces)[: (end - begin) * width].view(end - begin, *part.shape[1:])

    return Source(part, rows)


def _random_block() -> torch.Tensor:
    return torch.randn(_BLOCK_NUMBERS, generator=torch.Generator().manual_seed(0)).mul_(_SPREAD)


def _fill(model: PreTrainedModel, block: torch.Tensor) -> None:
    """Give every parameter its memory, once also where two modules share it."""
    filled: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, empty in module.named_parameters(recurse=False):
            if id(empty) not in filled:
                values = torch.empty(empty.shape, dtype=empty.dtype, device=block.device)
                _write(values, name, block)
                filled[id(empty)] = torch.nn.Parameter(values, requires_grad=False)
            setattr(module, name, filled[id(empty)])
    model.to(block.device)  # the buffers


def _write(values: torch.Tensor, name: str, block: torch.Tensor) -> None:
    """Matrices get random numbers; scales are one and biases zero, as before a training."""
    if values.ndim < 2:
        values.fill_(0 if "bias" in name else 1)
        return
    for piece in values.view(-1).split(len(block)):
        piece.copy_(block[: len(piece)])
