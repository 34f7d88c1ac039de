"""How the installed torch was built, and what it sees of this machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["TorchBuild", "TorchDevice", "torch_build"]


@dataclass(frozen=True, slots=True)
class TorchDevice:
    """A device that models can run on. `kind` is cpu, cuda or mps; `total_bytes` is None where it has no own memory."""

    kind: str
    name: str
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """`kind` is CPU, or the GPU library with its version; `num_threads` is what one operator takes of a CPU."""

    version: str
    kind: str
    num_threads: int
    devices: tuple[TorchDevice, ...]


def torch_build() -> TorchBuild:
    """Ask torch. Nothing is computed."""
    devices = [TorchDevice("cpu", "cpu")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(index)
            devices.append(TorchDevice("cuda", f"cuda:{index} {found.name}", int(found.total_memory)))
    if torch.backends.mps.is_available():
        devices.append(TorchDevice("mps", "mps"))
    return TorchBuild(str(torch.__version__), _kind(), torch.get_num_threads(), tuple(devices))


def _kind() -> str:
    if torch.version.cuda is not None:
        return f"CUDA {torch.version.cuda}"
    hip = getattr(torch.version, "hip", None)
    if hip is not None:
        return f"ROCm {hip}"
    return "Metal and CPU" if torch.backends.mps.is_built() else "CPU"
