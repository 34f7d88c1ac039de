"""`llm-local doctor`: what this machine offers, what llm-local makes of it, and what to mend."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_local.cli.version import versions
from llm_local.config import Config, load_config
from llm_local.errors import LocalLLMError
from llm_local.kernels.build import PREBUILT, cache_folder, environment_folder
from llm_local.kernels.compiler import BuildFailed, find_compiler
from llm_local.store.home import cache_home
from llm_local.store.snapshots import cache_folder as models_folder
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["Finding", "NeedsMending", "add_flags", "findings", "run"]

LOW_DISK_BYTES: Final = 5 * 10**9  # less than a small model, its packed weights and room to work


class NeedsMending(LocalLLMError):
    """Something on this machine keeps llm-local from its best; the report before it says what."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `mend` says what to do about it; empty when all is well."""

    name: str
    value: str
    mend: str = ""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print the findings, one a line.

    Raises:
        NeedsMending: at least one of them needs it.
        ConfigError: a setting cannot be used.
    """
    config = load_config()
    found = list(findings(config))
    if args.json:
        answer.write(json.dumps([dataclasses.asdict(one) for one in found], indent=2) + "\n")
    else:
        width = max(len(one.name) for one in found)
        for one in found:
            answer.write(f"{one.name:<{width}}  {one.value}\n")
            if one.mend:
                answer.write(f"{'':<{width}}  -> {one.mend}\n")
    wrong = [one.name for one in found if one.mend]
    if wrong:
        raise NeedsMending(f"{', '.join(wrong)}: see above.")


def findings(config: Config) -> Iterator[Finding]:
    """Look at this machine. Builds the kernels where they are not built yet."""
    for name, version in versions().items():
        missing = "" if version else "Run the installation again."
        yield Finding(name, version or "not installed", missing)
    yield _machine()
    yield from _kernels(config)
    yield Finding("device", config.get_device())
    yield Finding("quantization", config.quantization)
    yield Finding(
        "hub", "off (offline)" if config.offline else "asked only for models that are not on this disk"
    )
    # HF_HOME from the settings reaches the store through the environment
    yield _folder("models", models_folder({**os.environ, **config.hub_environment()}))
    yield _folder("packed weights", cache_home() / "packed")


def _machine() -> Finding:
    # Late: the verbs that do not look at the machine start without it.
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(
        "machine",
        f"{platform.machine()}, {cores} cores, "
        f"{memory.total / 1e9:.1f} GB memory, {memory.available / 1e9:.1f} GB free",
    )


def _kernels(config: Config) -> Iterator[Finding]:
    """Which kernels run and why; asking loads torch, whose threads they share."""
    if config.kernels == "off":
        yield Finding("kernels", f"off, by {config.origin('kernels')} (KERNELS)")
        return
    # Late: it takes a second, and `--help` needs none of it.
    from llm_local.kernels.library import status

    told = status()
    if told.reason:
        yield Finding(
            "kernels",
            f"none: {told.reason}; torch's own operators run instead, slower",
            told.mend or "Install llm-local again.",
        )
        return
    others = [name for name in told.usable_variants if name != told.variant]
    yield Finding(
        "kernels",
        f"{told.variant}, the best of what this CPU runs ({', '.join(told.usable_variants)})"
        if told.usable_variants[0] == told.variant
        else f"{told.variant}, chosen by LLM_LOCAL_KERNEL_VARIANT (also here: {', '.join(others)})",
    )
    yield Finding("kernel threads", told.threads)
    yield Finding("kernel library", f"{told.library} ({_origin(Path(told.library))})")
    yield _compiler()


def _compiler() -> Finding:
    """What would build the kernels, which a shipped or earlier built library does without."""
    try:
        found = find_compiler()
    except BuildFailed as error:
        return Finding("compiler", f"none: {error.message}", error.hint)
    if found is None:
        return Finding("compiler", "none, and none is needed")
    if found.instead_of:
        return Finding(
            "compiler",
            f"{found.command[0]}, because CXX names {found.instead_of}, which is not installed",
            "Install that one, set CXX to another C++ compiler, or unset it.",
        )
    return Finding("compiler", " ".join(found.command))


def _origin(library: Path) -> str:
    """Who made the library, by where it lies."""
    origins = {
        PREBUILT: "shipped with llm-local",
        environment_folder(): "built with the installation",
        cache_folder(): "built here",
    }
    told = (words for folder, words in origins.items() if library.is_relative_to(folder))
    return next(told, "built for this run only")


def _folder(name: str, folder: Path) -> Finding:
    """Where something is kept, and whether there is room."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    value = str(folder)
    if not os.access(there, os.W_OK) or not there.is_dir():
        return Finding(name, value, f"Make {there} a directory you can write to, or choose another one.")
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(there).free
        value = f"{folder}, {free / 1e9:.1f} GB free"
        if free < LOW_DISK_BYTES:
            return Finding(
                name, value, "Free some disk space; `llm-local config` shows how to use another disk."
            )
    return Finding(name, value)
