"""Finding the weight that is not a number, once something has gone wrong.

Plain weights are mapped and read when they are first used, so loading does not look at them: that would read the whole
file before the first token. Packed weights are looked at when they are packed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llm_local.errors import ModelCorrupt
from llm_local.loaders.safetensors import read_header, read_weights

__all__ = ["damaged_weight", "find_bad_weight", "is_finite", "weight_files"]


def is_finite(tensor: torch.Tensor, *, or_infinite: bool = False) -> bool:
    """Whether all values are finite numbers, or at least numbers.

    By their extremes, which a NaN among them makes NaN: one pass without a copy, 20 times as fast as `torch.isfinite`
    on bfloat16 (2.13).
    """
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return True
    values = tensor.detach()
    if values.element_size() == 1:  # 8-bit floats cannot be compared
        values = values.float()
    low, high = (float(one) for one in torch.aminmax(values))
    return not math.isnan(low) if or_infinite else math.isfinite(low) and math.isfinite(high)


def find_bad_weight(model: nn.Module) -> str | None:
    """The first tensor of a model, in its own order, with a value that is infinite or not a number; None: none has.

    Reads all weights. In stored buffers infinity is no damage: some hold a mask.
    """
    for name, parameter in model.named_parameters():
        if not is_finite(parameter):
            return name
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            stored = name not in module._non_persistent_buffers_set
            if stored and not is_finite(buffer, or_infinite=True):
                return f"{path}.{name}".lstrip(".")
    return None


def weight_files(model: Any) -> tuple[Path, ...]:
    """The files that a model was loaded from; none where that cannot be told any more."""
    folder = Path(getattr(model, "name_or_path", "") or "/nowhere")
    try:
        return read_weights(folder).files if folder.is_dir() else ()
    except (ModelCorrupt, OSError):
        return ()


def damaged_weight(name: str, files: Iterable[Path]) -> ModelCorrupt:
    """The error that names a tensor of a model, and which of its `files` has it."""
    file = next((path.name for path in files if _has(path, name)), None)
    return ModelCorrupt(
        f"{file or 'The model'} is damaged: {name} has values that are infinite, not a number, or beyond all measure.",
        "Delete the model's files and fetch it again.",
        file=file,
    )


def _has(path: Path, name: str) -> bool:
    """True when a file has a tensor of that name; the model may put a prefix before a stored name, or leave one out."""
    try:
        stored = read_header(path)
    except ModelCorrupt:
        return False
    return name in stored or any(
        name.endswith(f".{one}") or one.endswith(f".{name}") for one in stored if "." in one and "." in name
    )
