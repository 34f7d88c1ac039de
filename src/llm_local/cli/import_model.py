"""`llm-local import`: a name for a folder or a GGUF file that lies elsewhere, which is read where it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from llm_local.cli.cp import add_naming_flags, tell
from llm_local.errors import InvalidRequest
from llm_local.store.naming import import_model, proposed_name
from llm_local.terminal.progress import ProgressReporter
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["add_flags", "run"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("path", metavar="PATH", help="a folder with a model, or a .gguf file")
    parser.add_argument(
        "name", nargs="?", metavar="NEW_NAME", help="what to call it; else what its path is called"
    )
    add_naming_flags(parser)


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Read the files once, so that `verify` can tell later whether they changed, and keep the name.

    Raises:
        LocalLLMError: there is no model, or the name cannot be given.
    """
    path = Path(args.path).expanduser()
    name = args.name or proposed_name(path.absolute())
    if not name:
        raise InvalidRequest(f"{args.path} suggests no name.", "Write one after it.", param="name")
    progress = ProgressReporter(messages)
    try:
        model = import_model(path, name, force=args.force, on_progress=progress)
    finally:
        progress.close()
    tell(model, args, answer, messages)
