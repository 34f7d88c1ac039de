"""A model of a given shape with random weights: as fast and as large as the real one, and talking nonsense.

Without a tokenizer and without a file. Filled from one small random block, because drawing half a billion normal
numbers takes longer than what is measured afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PreTrainedModel

from llm_local.errors import InsufficientMemory
from llm_local.loaders.architectures import choose_class, config_class
from llm_local.loaders.configuration import ModelConfig, context_length
from llm_local.loaders.devices import available_bytes, computes_bfloat16, resolve_device
from llm_local.specs import DeviceName, DtypeName, ModelInfo

__all__ = ["random_model"]

# Prime, so that the rows of no matrix repeat.
_BLOCK_NUMBERS: Final = 1_000_003
# The usual spread at the start of a training: activations stay near one through any number of layers.
_SPREAD: Final = 0.02


def random_model(
    name: str, shape: Mapping[str, Any], *, dtype: DtypeName = "auto", device: DeviceName = "auto"
) -> tuple[PreTrainedModel, ModelInfo]:
    """A model ready for inference, the same at every call, and the facts about it.

    `shape` is a configuration as in `config.json`. "auto" takes bfloat16 where the device computes it, else float32.

    Raises:
        UnsupportedTask: the shape is of no model that generates text.
        InsufficientMemory: it does not fit.
        InvalidRequest: this machine does not have the device.
    """
    config = ModelConfig(shape, has_own_code=False)
    choose_class(config)
    place = resolve_device(device)
    made = config_class(config.model_type).from_dict(dict(shape))
    with init_empty_weights(include_buffers=False):  # buffers are tables computed from the shape: keep them
        model = AutoModelForCausalLM.from_config(made, dtype=_number_format(dtype, place))
    model.tie_weights()  # moving to no memory has parted what shapes share
    parameters = list(model.parameters())
    weight_bytes = sum(one.nbytes for one in parameters)
    have_bytes = available_bytes(place)
    if weight_bytes > have_bytes:
        raise InsufficientMemory(
            f"{name} needs {weight_bytes / 1e9:.1f} GB of memory, but {have_bytes / 1e9:.1f} GB are free on {place}.",
            "Choose a smaller shape, or close other programs.",
            need_bytes=weight_bytes,
            have_bytes=have_bytes,
        )
    _fill(model, torch.device(place))
    info = ModelInfo(
        ref=name,
        path="",
        architecture=type(model).__name__,
        num_parameters=sum(one.numel() for one in parameters),
        weight_bytes=weight_bytes,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        context_length=context_length(shape, None),
        vocab_size=int(model.get_output_embeddings().weight.shape[0]),
        has_chat_template=False,
    )
    return model.eval(), info


def _number_format(dtype: DtypeName, device: str) -> torch.dtype:
    if dtype == "auto":
        return torch.bfloat16 if device != "cpu" or computes_bfloat16() else torch.float32
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]


def _fill(model: PreTrainedModel, device: torch.device) -> None:
    """Give every parameter its memory, once also where two modules share it."""
    block = torch.randn(_BLOCK_NUMBERS, generator=torch.Generator().manual_seed(0)).mul_(_SPREAD).to(device)
    filled: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, empty in module.named_parameters(recurse=False):
            if id(empty) not in filled:
                values = torch.empty(empty.shape, dtype=empty.dtype, device=device)
                _write(values, name, block)
                filled[id(empty)] = torch.nn.Parameter(values, requires_grad=False)
            setattr(module, name, filled[id(empty)])
    model.to(device)  # the buffers


def _write(values: torch.Tensor, name: str, block: torch.Tensor) -> None:
    """Matrices get random numbers; scales are one and biases zero, as before a training."""
    if values.ndim < 2:
        values.fill_(0 if "bias" in name else 1)
        return
    for piece in values.view(-1).split(len(block)):
        piece.copy_(block[: len(piece)])
