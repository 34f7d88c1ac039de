"""`llm-local cp`: a second name for a model. Nothing is copied on the disk."""

from __future__ import annotations

import argparse
import json

from llm_local.cli.list_models import describe
from llm_local.store.library import StoredModel
from llm_local.store.naming import copy_model
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["add_flags", "add_naming_flags", "run", "tell"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb."""
    parser.add_argument("source", metavar="MODEL", help="a model that is here")
    parser.add_argument("name", metavar="NEW_NAME", help="what else to call it; without a slash")
    add_naming_flags(parser)


def add_naming_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of a verb that gives a name."""
    parser.add_argument("--force", action="store_true", help="also a name that you gave to something else")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Give the name, and say on stderr what it means from now on.

    Raises:
        LocalLLMError: there is no such model, or the name cannot be given.
    """
    tell(copy_model(args.source, args.name, force=args.force), args, answer, messages)


def tell(model: StoredModel, args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> None:
    """Say what a name means now."""
    messages.note(
        f"{model.name} is now {model.alias_of} in every command, and no longer a model of that name on the hub"
    )
    if args.json:
        answer.write(json.dumps(describe(model).to_object(), indent=2) + "\n")
