"""`llm-local version`: what to write into a bug report."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Final

from llm_local import __version__
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["add_flags", "run", "versions"]

_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "huggingface_hub", "safetensors")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Print name and version of llm-local, Python, the platform and the libraries.

    Raises:
        StorageError: stdout refused.
    """
    found = versions()
    if args.json:
        text = json.dumps(found, indent=2)
    else:
        text = "\n".join(f"{name} {version or 'not installed'}" for name, version in found.items())
    answer.write(text + "\n")


def versions() -> dict[str, str | None]:
    """Versions by name, read from what is installed without importing it; None where it is not."""
    # Late: `llm-local --help` needs no metadata.
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {
        "llm-local": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = None
    return found
