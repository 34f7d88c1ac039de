"""`llm-local rm`: take models away, and free what no other model needs."""

from __future__ import annotations

import argparse
import json

from llm_local.store.removal import Removed, remove_models
from llm_local.terminal.sizes import format_bytes
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["add_flags", "run"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="a model, as `llm-local list` names it")
    parser.add_argument("--force", action="store_true", help="also one that is in use, or has other names")
    parser.add_argument("--json", action="store_true", help="print one JSON list of what was removed")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Remove the models, and say so on stderr; nothing is asked.

    Raises:
        LocalLLMError: one is not here, not ours, or in use; what was named before it may be gone, which was said then.
    """
    removed: list[Removed] = []
    try:
        for one in remove_models(args.names, force=args.force):
            removed.append(one)
            freed = "its files stay" if one.is_name_only else f"{format_bytes(one.freed_bytes)} freed"
            messages.note(f"removed {one.name}; {freed}")
    finally:
        if args.json:
            told = [
                {"name": one.name, "freed_bytes": one.freed_bytes, "name_only": one.is_name_only}
                for one in removed
            ]
            answer.write(json.dumps(told, indent=2) + "\n")
