"""Native kernels: which run, why, and what would build them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llm_local.cli.checks.check import Check
from llm_local.config import Config
from llm_local.kernels.build import PREBUILT, cache_folder, environment_folder
from llm_local.kernels.compiler import BuildFailed, find_compiler

__all__ = ["check_kernels"]


def check_kernels(config: Config) -> Iterator[Check]:
    """Builds them where they are not built yet; asking loads torch, whose threads they share."""
    if config.kernels == "off":
        yield Check("kernels", f"off, by {config.origin('kernels')} (KERNELS)")
        return
    # Late: it takes a second, and `--help` needs none of it.
    from llm_local.kernels.library import status

    told = status()
    if told.reason:
        found = f"none: {told.reason}; torch's own operators run instead, slower"
        yield Check("kernels", found, "fail", told.mend or "Install llm-local again.")
        return
    others = [name for name in told.usable_variants if name != told.variant]
    yield Check(
        "kernels",
        f"{told.variant}, the best of what this CPU runs ({', '.join(told.usable_variants)})"
        if told.usable_variants[0] == told.variant
        else f"{told.variant}, chosen by LLM_LOCAL_KERNEL_VARIANT (also here: {', '.join(others)})",
    )
    yield Check("kernel threads", told.threads)
    yield Check("kernel library", f"{told.library} ({_origin(Path(told.library))})")
    yield _compiler()


def _compiler() -> Check:
    """What would build the kernels, which a shipped or earlier built library does without."""
    try:
        found = find_compiler()
    except BuildFailed as error:
        return Check("compiler", f"none: {error.message}", "fail", error.hint)
    if found is None:
        return Check("compiler", "none, and none is needed")
    if found.instead_of:
        told = f"{found.command[0]}, because CXX names {found.instead_of}, which is not installed"
        return Check(
            "compiler", told, "warn", "Install that one, set CXX to another C++ compiler, or unset it."
        )
    return Check("compiler", " ".join(found.command))


def _origin(library: Path) -> str:
    """Who made the library, by where it lies."""
    origins = {
        PREBUILT: "shipped with llm-local",
        environment_folder(): "built with the installation",
        cache_folder(): "built here",
    }
    told = (words for folder, words in origins.items() if library.is_relative_to(folder))
    return next(told, "built for this run only")
