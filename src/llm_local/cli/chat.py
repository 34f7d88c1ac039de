"""`llm-local chat [MODEL]`: talk with a model. `./chat.sh` is the plain one without an installation."""

from __future__ import annotations

import argparse

from llm_local.repl.flags import add_chat_flags
from llm_local.repl.start import run_chat
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.streams import AnswerWriter, Messages

__all__ = ["add_flags", "converse", "run"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the verb; the model is its first word."""
    parser.add_argument(
        "model_id", metavar="MODEL", nargs="?", help="The model: org/name, a directory, or starter."
    )
    add_chat_flags(parser, names_model=False)
    parser.add_argument(
        "--plain", action="store_true", help="Lines in, lines out, as it is where there is no terminal."
    )


def run(args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> int:
    """Chat, and return the exit code. No failure escapes; stdout is taken over, so `answer` stays unused."""
    return converse(args, messages, plain=args.plain)


def converse(args: argparse.Namespace, messages: Messages, *, plain: bool) -> int:
    """Chat in the best way that this terminal allows, or in plain lines."""
    return run_chat(args, _plain if plain else _best, messages)


def _plain(parts: FrontParts) -> ChatFront:
    # Late: help needs none of it.
    from llm_local.terminal.plain_front import plain_front

    return plain_front(parts)


def _best(parts: FrontParts) -> ChatFront:
    # Late: help needs none of it.
    from llm_local.terminal.fronts import best_front

    return best_front(parts)
