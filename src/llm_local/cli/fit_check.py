"""Whether a model on the hub fits this machine, found out before it is downloaded."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llm_local.bench.memory_speed import memory_bytes_per_s
from llm_local.config import Config
from llm_local.errors import InsufficientMemory, StorageError
from llm_local.kernels.build import why_missing
from llm_local.loaders.configuration import context_length
from llm_local.loaders.estimate import Form, best_form, cpu_form, form_of, forms
from llm_local.loaders.host import WORKING_BYTES, host_bytes
from llm_local.loaders.quantization import choose_quantization
from llm_local.loaders.remote_headers import remote_config, weights_on_hub
from llm_local.loaders.safetensors import Weights
from llm_local.specs import ModelSpec
from llm_local.store.destinations import Destination
from llm_local.store.download import RemoteFile, free_bytes, storage_errors
from llm_local.store.pulling import missing_bytes
from llm_local.store.remote import RemoteModel
from llm_local.store.selection import CONFIG
from llm_local.terminal.sizes import format_bytes, format_count

__all__ = ["FitCheck", "check_disk", "check_fit", "check_memory"]

_USUAL_CONTEXT: Final = 4096
_DISK_TO_SPARE_BYTES: Final = 64 << 20
# What shows that there may be a GPU, so that only then torch is asked, whose import takes seconds.
_GPU_DEVICES: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True, slots=True)
class FitCheck:
    """What a model would take, and what there is. All sizes in bytes.

    - `form`: what would be used here, by the settings; `best` what fits, None where nothing does.
    - `tokens_per_s`: the most that reading memory allows; None where that was not measured, as on a GPU.
    - `estimated`: what of it is an estimate rather than counted, in words.
    """

    download_bytes: int
    missing_bytes: int
    disk_free_bytes: int
    num_parameters: int | None
    stored: str
    device: str
    memory_free_bytes: int
    context_length: int | None
    form: Form
    best: Form | None
    others: tuple[Form, ...]
    explicit: bool
    tokens_per_s: float | None
    estimated: str

    @property
    def fits_disk(self) -> bool:
        """True when there is room for what is still to come."""
        need = self.missing_bytes
        return not need or need + _DISK_TO_SPARE_BYTES <= self.disk_free_bytes

    @property
    def fits_memory(self) -> bool:
        """True when it can be run: as asked for, or, where nothing was asked for, in some form."""
        if self.explicit:
            return self.form.need_bytes <= self.memory_free_bytes
        return self.best is not None

    def to_object(self) -> dict[str, Any]:
        """For programs."""
        best = self.best
        return {
            "fits": self.fits_disk and self.fits_memory,
            "disk": {
                "need_bytes": self.missing_bytes,
                "free_bytes": self.disk_free_bytes,
                "fits": self.fits_disk,
            },
            "memory": {
                "device": self.device,
                "form": self.form.name,
                "need_bytes": self.form.need_bytes,
                "kv_bytes": self.form.kv_bytes,
                "free_bytes": self.memory_free_bytes,
                "context_length": self.context_length,
                "fits": self.fits_memory,
            },
            "best": None if best is None else {"form": best.name, "need_bytes": best.need_bytes},
            "forms": {form.name: form.need_bytes for form in self.others},
            "parameters": self.num_parameters,
            "stored_as": self.stored,
            "max_tokens_per_s": None if self.tokens_per_s is None else round(self.tokens_per_s, 1),
            "estimated": self.estimated,
        }

    def lines(self) -> list[tuple[str, str]]:
        """For people: what it is about, and what there is to say."""
        rows = [("disk", self._disk_line())]
        if self.num_parameters is not None:
            rows.append(("parameters", f"{format_count(self.num_parameters)}, stored as {self.stored}"))
        rows.append(("memory", self._memory_line()))
        if self.best is not None and self.best.name != self.form.name and not self.explicit:
            rows.append(("best here", self._best_line(self.best)))
        if self.others:
            told = (f"{form.name} {format_bytes(form.need_bytes)}" for form in self.others)
            rows.append(("would need", ", ".join(told)))
        if self.tokens_per_s is not None:
            rows.append(
                (
                    "speed",
                    f"at most about {_rate(self.tokens_per_s)} tokens/s, by how fast memory is read just now",
                )
            )
        if self.estimated:
            rows.append(("estimated", self.estimated))
        return rows

    def _disk_line(self) -> str:
        to_come = (
            "nothing to fetch" if not self.missing_bytes else f"{format_bytes(self.missing_bytes)} to fetch"
        )
        verdict = "fits" if self.fits_disk else "does not fit"
        return f"{to_come}, {format_bytes(self.disk_free_bytes)} free: {verdict}"

    def _memory_line(self) -> str:
        form = self.form
        window = ""
        if self.context_length is not None and form.kv_bytes:
            window = f" with {self.context_length} tokens of context ({format_bytes(form.kv_bytes)} of it)"
        verdict = "fits" if form.need_bytes <= self.memory_free_bytes else "does not fit"
        return (
            f"{format_bytes(form.need_bytes)} as {form.name}{window}, "
            f"{format_bytes(self.memory_free_bytes)} free on {self.device}: {verdict}"
        )

    def _best_line(self, best: Form) -> str:
        flag = f"--quant {best.name}" if best.name.startswith("int") else f"--quant none --dtype {best.name}"
        return f"{best.name}, {format_bytes(best.need_bytes)}: fits with {flag}"


def check_fit(
    remote: RemoteModel, files: Sequence[RemoteFile], goal: Destination, config: Config
) -> FitCheck:
    """Look at the model's configuration and the headers of its weights, and at this machine; nothing is written.

    Raises:
        InvalidRequest: a longer context than the model has, or what this machine does not have.
        UnsupportedTask: the weights are quantized. ModelCorrupt: a file is damaged on the hub already.
        AccessDenied, HubUnavailable: the hub refuses. StorageError: the disk does.
    """
    with storage_errors(goal.folder, goal.remedy):
        missing = missing_bytes(files, goal)
        disk = (sum(file.size or 0 for file in files), missing, free_bytes(goal.folder))
    spec = config.model_spec()
    named = {file.name: file for file in files}
    if CONFIG not in named:
        return _of_gguf(files, disk)
    values = remote_config(remote.read_whole(named[CONFIG])).values
    window = min(_USUAL_CONTEXT, context_length(values, None))
    if spec.context_length is not None:
        window = context_length(values, spec.context_length)
    weights = weights_on_hub(files, remote, goal)
    device, have = _device(spec)
    form = form_of(weights, values, _chosen(spec, weights, device, have), window)
    others = forms(weights, values, window) if device == "cpu" else ()
    speed = memory_bytes_per_s() / form.read_bytes if device == "cpu" and form.read_bytes else None
    return FitCheck(
        *disk,
        num_parameters=weights.bytes_as(1),
        stored=weights.dtype,
        device=device,
        memory_free_bytes=have,
        context_length=window,
        form=form,
        best=best_form(form, others, have),
        others=others,
        explicit=config.is_explicit("quantization") or config.is_explicit("torch_dtype"),
        tokens_per_s=speed,
        estimated=""
        if form.kv_bytes
        else "memory for keys and values, which the configuration does not tell",
    )


def check_disk(check: FitCheck, ref: str, folder: Path) -> None:
    """See that there is room.

    Raises:
        StorageError: there is not; both numbers are in the message.
    """
    if not check.fits_disk:
        raise StorageError(
            f"{ref} does not fit: {format_bytes(check.missing_bytes)} are to be fetched, but only "
            f"{format_bytes(check.disk_free_bytes)} are free on the disk of {folder}.",
            "Free some space, point HF_HOME at a larger disk, or use --output.",
        )


def check_memory(check: FitCheck, ref: str, hint: str) -> None:
    """See that it can be run here.

    Raises:
        InsufficientMemory: it cannot; both numbers are in the message.
    """
    if not check.fits_memory:
        smallest = check.form if check.explicit or not check.others else check.others[-1]
        raise InsufficientMemory(
            f"{ref} does not fit: as {smallest.name} it needs {format_bytes(smallest.need_bytes)} of memory, but "
            f"{format_bytes(check.memory_free_bytes)} are free on {check.device}.",
            hint,
            need_bytes=smallest.need_bytes,
            have_bytes=check.memory_free_bytes,
        )


def _of_gguf(files: Sequence[RemoteFile], disk: tuple[int, int, int]) -> FitCheck:
    """Of a GGUF file only the size is looked at: it is what lies in memory, and what each token reads."""
    size = disk[0]
    form = Form("GGUF", size, size + WORKING_BYTES, 0, size)
    have = host_bytes()
    return FitCheck(
        *disk,
        num_parameters=None,
        stored="GGUF",
        device="cpu",
        memory_free_bytes=have,
        context_length=None,
        form=form,
        best=best_form(form, (), have),
        others=(),
        explicit=False,
        tokens_per_s=memory_bytes_per_s() / size if size else None,
        estimated="all of it, from the size of the file alone; and GGUF cannot be run yet",
    )


def _device(spec: ModelSpec) -> tuple[str, int]:
    """Where it would run, and the memory that is free there."""
    may_have_gpu = any(Path(name).exists() for name in _GPU_DEVICES) or (
        platform.system() == "Darwin" and platform.machine() == "arm64"
    )
    if spec.device == "cpu" or (spec.device == "auto" and not may_have_gpu):
        return "cpu", host_bytes()
    # Late: torch takes seconds, and only it knows GPUs.
    from llm_local.loaders.devices import gpu_bytes, resolve_device

    device = resolve_device(spec.device)
    return device, host_bytes() if device == "cpu" else gpu_bytes(device)


def _chosen(spec: ModelSpec, weights: Weights, device: str, have: int) -> str:
    """The form that loading would choose."""
    if device == "cpu":
        return cpu_form(spec, weights, why_missing, have)
    choose_quantization(spec, device, weights, why_missing)  # refuses what a GPU does not run
    # Late: see above.
    from llm_local.loaders.devices import resolve_dtype

    return str(resolve_dtype(spec, device, weights)).removeprefix("torch.")


def _rate(rate: float) -> str:
    return f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"
