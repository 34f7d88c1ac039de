"""The versions of what llm-local runs on, and how torch was built."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llm_local.cli.checks.check import Check
from llm_local.cli.version import versions
from llm_local.terminal.sizes import format_bytes

if TYPE_CHECKING:
    from llm_local.loaders.torch_build import TorchBuild

__all__ = ["check_torch", "check_versions", "floors"]

_FLOOR: Final = re.compile(r"([A-Za-z0-9_.-]+)\s*(?:\[[^]]*\])?\s*>=\s*([0-9.]+)")
_NVIDIA: Final = Path("/proc/driver/nvidia/version")


def check_versions() -> Iterator[Check]:
    """Everything that must be installed, and whether it is new enough."""
    least = floors(_requirements())
    for name, version in versions().items():
        if not version:
            yield Check(name, "not installed", "fail", "Run the installation again.")
        elif name in least and _numbers(version) < _numbers(least[name]):
            needed = f"{version}, but {least[name]} is needed"
            yield Check(name, needed, "fail", "Run the installation again; older ones have known faults.")
        else:
            yield Check(name, version)


def floors(requirements: Iterable[str]) -> dict[str, str]:
    """The oldest version that will do, by the name of the library."""
    found = (_FLOOR.match(line) for line in requirements)
    return {match[1].replace("-", "_"): match[2] for match in found if match}


def check_torch(nvidia: Path = _NVIDIA) -> Iterator[Check]:
    """How torch was built, how many threads it takes, and which devices it sees. Takes a second."""
    # Late: the verbs that need no torch must not wait for it.
    try:
        from llm_local.loaders.torch_build import torch_build

        build = torch_build()
    except Exception as error:  # a broken library fails in ways of its own, and each is what there is to tell
        reason = str(error).partition("\n")[0] or type(error).__name__
        yield Check("torch build", f"torch cannot be used: {reason}", "fail", "Run the installation again.")
        return
    yield Check("torch build", f"{build.kind}, {build.num_threads} threads")
    yield _devices(build, nvidia)


def _devices(build: TorchBuild, nvidia: Path) -> Check:
    found = ", ".join(
        device.name if device.total_bytes is None else f"{device.name} ({format_bytes(device.total_bytes)})"
        for device in build.devices
    )
    if nvidia.exists() and all(device.kind != "cuda" for device in build.devices):
        mend = "Install the CUDA build of torch." if build.kind == "CPU" else "Look at `nvidia-smi`."
        return Check("devices", f"{found}; an NVIDIA GPU is here, but torch cannot use it", "warn", mend)
    return Check("devices", found)


def _requirements() -> list[str]:
    # Late: only this needs the metadata.
    from importlib.metadata import PackageNotFoundError, requires

    try:
        return requires("llm-local") or []
    except PackageNotFoundError:  # run from a checkout
        return []


def _numbers(version: str) -> tuple[int, ...]:
    """A version as numbers, up to the first part that is none: 2.10.0+cpu is (2, 10, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()
