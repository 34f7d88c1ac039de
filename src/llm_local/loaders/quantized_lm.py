"""A model of low-bit weights from its files, or from what an earlier start packed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import torch
from transformers import PreTrainedModel

from llm_local.errors import InsufficientMemory, UnsupportedTask
from llm_local.events import Progress
from llm_local.loaders.architectures import choose_class
from llm_local.loaders.causal_lm import Checkpoint, load_weights
from llm_local.loaders.devices import Placement, available_bytes, no_native, stored_dtype
from llm_local.loaders.finite_weights import damaged_weight
from llm_local.loaders.mapped_pages import MappedFiles
from llm_local.loaders.packed_cache import PackedCache
from llm_local.loaders.packed_keys import pack_key, packed_folder
from llm_local.loaders.packed_model import PackingJob, assemble, packed_tensors, share_left
from llm_local.loaders.packing import BadWeights, plan
from llm_local.loaders.quantization import describe
from llm_local.loaders.safetensors import read_header
from llm_local.loaders.stock_model import use_stock_layers
from llm_local.specs import ModelSpec

__all__ = ["Quantized", "load_quantized"]

# Beyond this share, people should know what was not packed; norms and biases stay far below.
_SHARE_WORTH_TELLING: Final = 0.05


@dataclass(frozen=True, slots=True)
class Quantized:
    """A model with packed weights, and lines that people should see. `stored`: the weights, where a file has them."""

    model: PreTrainedModel
    notices: tuple[str, ...] = ()
    stored: torch.Tensor | None = None


def load_quantized(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    placement: Placement,
    on_progress: Callable[[Progress], None],
) -> Quantized:
    """The model with weights of `placement.bits`, ready for inference on the CPU.

    Raises:
        ModelCorrupt: its weights do not fit its configuration, or are no numbers.
        InsufficientMemory: there is less than the packed weights take.
        UnsupportedTask: its own code runs it, which cannot be packed.
    """
    if checkpoint.made is None:
        raise UnsupportedTask(
            "A model that runs with code of its own cannot be packed to fewer bits.", "Use --quant none."
        )
    try:
        if no_native(spec.kernels):
            return Quantized(_stock(checkpoint, placement))
        return _packed(checkpoint, spec, placement, on_progress)
    except BadWeights as error:
        name = str(error)
        file = next((one.name for one in checkpoint.weights.files if name in read_header(one)), "")
        raise damaged_weight(name, file) from error


def _packed(
    checkpoint: Checkpoint, spec: ModelSpec, placement: Placement, on_progress: Callable[[Progress], None]
) -> Quantized:
    stored = checkpoint.weights.num_bytes
    meter = _Meter(stored, spec.ref, on_progress)
    cache = PackedCache(packed_folder(), spec.packed_cache_bytes) if spec.packed_cache_bytes else None
    key = pack_key(checkpoint.config.values, checkpoint.weights, placement.bits)
    tensors, unkept = packed_tensors(
        lambda: _job(checkpoint, placement, meter.add), cache, key, on_wait=lambda: meter.add(0)
    )
    model = assemble(choose_class(checkpoint.config), checkpoint.made, tensors, checkpoint.folder)
    left = share_left(tensors.layout)
    notices = (
        describe(placement.bits, tensors.layout.num_bytes, stored) if spec.quantization == "auto" else "",
        f"{left:.0%} of this model's bytes are in layers that llm-local cannot pack; they are float32."
        if left > _SHARE_WORTH_TELLING
        else "",
        unkept,
    )
    return Quantized(
        model, tuple(filter(None, notices)), None if unkept or cache is None else tensors.storage
    )


def _stock(checkpoint: Checkpoint, placement: Placement) -> PreTrainedModel:
    model = _read(checkpoint, placement)
    use_stock_layers(model, placement.bits, MappedFiles(checkpoint.weights.files).release)
    model.config.dtype = torch.float32
    return model


class _Meter:
    """Adds up what was read."""

    def __init__(self, total: int, label: str, on_progress: Callable[[Progress], None]) -> None:
        self._done, self._total, self._label, self._tell = 0, total, label, on_progress

    def add(self, num_bytes: int) -> None:
        """Tell that so many more bytes were read."""
        self._done = min(self._done + num_bytes, self._total)
        self._tell(Progress("loading", self._done, self._total, self._label))


def _read(checkpoint: Checkpoint, placement: Placement) -> PreTrainedModel:
    """The model as it is stored, its weights where the files are mapped."""
    plain = replace(placement, dtype=stored_dtype(checkpoint.weights))
    return load_weights(checkpoint, plain, trust=False)


def _job(checkpoint: Checkpoint, placement: Placement, report: Callable[[int], None]) -> PackingJob:
    model = _read(checkpoint, placement)
    mapped = MappedFiles(checkpoint.weights.files)
    job = PackingJob(plan(model, placement.bits), mapped.release, report)
    have = available_bytes("cpu")
    if job.layout.num_bytes > have:
        raise InsufficientMemory(
            f"The packed weights take {job.layout.num_bytes / 1e9:.1f} GB, but {have / 1e9:.1f} GB are free.",
            "Choose a smaller model, or --quant none.",
            need_bytes=job.layout.num_bytes,
            have_bytes=have,
        )
    return job
