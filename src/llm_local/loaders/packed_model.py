"""A model over packed tensors: built without memory of its own, then given each tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from llm_local.kernels.linear import PackedEmbedding, PackedLinear
from llm_local.loaders.packed_cache import CacheUnusable, PackedCache
from llm_local.loaders.packed_file import PackedTensors, in_memory
from llm_local.loaders.packing import KINDS, Layout, Part, Source, pack_into

__all__ = ["PackingJob", "assemble", "packed_tensors", "share_left"]


class PackingJob:
    """What to pack: `sources` in order, `release` for what was read, `report` for the bytes read."""

    def __init__(
        self,
        sources: list[Source],
        release: Callable[[torch.Tensor], None] = lambda tensor: None,
        report: Callable[[int], None] = lambda num_bytes: None,
    ) -> None:
        self._sources, self._release, self._report = sources, release, report
        self.layout = Layout(tuple(source.part for source in sources))

    def fill(self, write: Callable[[int, torch.Tensor], None]) -> None:
        """Pack everything through `write(offset, bytes)`."""
        pack_into(self._sources, write, self._release, self._report)


def packed_tensors(
    make_job: Callable[[], PackingJob],
    cache: PackedCache | None,
    key: str,
    on_wait: Callable[[], None] = lambda: None,
) -> tuple[PackedTensors, str]:
    """The packed tensors of a model, and a line for people where they could not be kept for the next time.

    Raises:
        ModelCorrupt: see `pack_into`.
    """
    job: PackingJob | None = None
    if cache is None:
        job = make_job()
        return in_memory(job.layout, job.fill), ""
    found = cache.find(key)
    if found is not None:
        return found, ""
    try:
        with cache.turn(key, on_wait):
            found = cache.find(key)  # another process may just have made it
            if found is None:
                job = make_job()
                found = cache.store(key, job.layout, job.fill)
            return found, ""
    except CacheUnusable as error:
        job = job or make_job()
        tensors = in_memory(job.layout, job.fill)
        return tensors, f"The packed weights are not kept for the next start: {error}."


def assemble(cls: Any, config: Any, tensors: PackedTensors, folder: Path | None = None) -> PreTrainedModel:
    """A model of transformers' class `cls`, ready for inference on the CPU, with our modules over packed parts.

    Raises:
        KeyError, ValueError: the tensors are not those of this class.
    """
    config = copy.deepcopy(config)
    config.dtype = torch.float32
    with init_empty_weights(
        include_buffers=False
    ):  # buffers are tables computed from the configuration: keep them
        model = cls(config)
    packed: list[tuple[str, Part, torch.Tensor]] = []
    for part, tensor in tensors:
        parameter = None if part.is_packed else nn.Parameter(tensor, requires_grad=False)
        for name in part.names:
            if parameter is None:
                packed.append((name, part, tensor))
            else:
                _set(model, name, parameter)
    for name, part, tensor in packed:  # last, since a packed layer takes over its bias
        _replace(model, name.rpartition(".")[0], part, tensor)
    missing = [name for name, one in model.named_parameters() if one.is_meta]
    if missing:
        raise ValueError(f"{missing[0]} is not among the packed tensors")
    if folder is not None and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return cast(PreTrainedModel, model.eval())


def share_left(layout: Layout) -> float:
    """The share of bytes that are not packed, from 0 to 1. Norms and biases alone stay below a hundredth."""
    left = sum(part.num_bytes for part in layout.parts if not part.is_packed)
    return left / max(layout.num_bytes, 1)


def _set(model: nn.Module, name: str, value: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._buffers:
        module._buffers[leaf] = value.data
    elif leaf in module._parameters:
        module._parameters[leaf] = value
    else:
        raise KeyError(name)


def _replace(model: nn.Module, path: str, part: Part, packed: torch.Tensor) -> None:
    parent, _, leaf = path.rpartition(".")
    old = model.get_submodule(path)
    rows, cols = part.shape
    if isinstance(old, nn.Embedding):
        scale = float(getattr(old, "scalar_embed_scale", 1.0))
        new: nn.Module = PackedEmbedding(packed, rows, cols, scale=scale)
    elif isinstance(old, nn.Linear):
        bias = None if old.bias is None else old.bias.data
        new = PackedLinear(KINDS[part.format], packed, rows, cols, bias)
    else:
        raise KeyError(path)
    setattr(model.get_submodule(parent), leaf, new)
