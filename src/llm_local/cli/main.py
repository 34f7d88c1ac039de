"""`llm-local VERB`: finds the verb, runs it, and turns every failure into one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llm_local import __version__
from llm_local.cli import settings, version
from llm_local.cli.parser import Parser, answer_on_stdout
from llm_local.errors import InvalidRequest
from llm_local.terminal.exit_codes import OK, USAGE, error_line, exit_code
from llm_local.terminal.streams import Messages, hold_standard_streams

__all__ = ["VERBS", "Verb", "main"]


@dataclass(frozen=True, slots=True)
class Verb:
    """One word after `llm-local`: its help, its options, and what it does."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Messages], None]


VERBS: Final[Mapping[str, Verb]] = {
    "config": Verb(
        "show the settings that hold, and where each came from", settings.add_options, settings.run
    ),
    "version": Verb(
        "show the versions of llm-local and of what it runs on", version.add_options, version.run
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (this process's own by default) and return its exit code."""
    hold_standard_streams()
    messages = Messages.on_stderr()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments, messages)
    except BrokenPipeError as error:
        return exit_code(error)
    except KeyboardInterrupt as error:
        messages.note("interrupted")
        return exit_code(error)
    except Exception as error:
        if "--debug" in arguments:
            # Late: a command that works has no traceback to print.
            import traceback

            messages.block(traceback.format_exc())
        messages.note(error_line(error))
        return exit_code(error)


def _dispatch(arguments: Sequence[str], messages: Messages) -> int:
    parser = _parser()
    word = next((word for word in arguments if not word.startswith("-")), None)
    if word is not None and word not in VERBS:
        raise _unknown(word)
    try:
        options = parser.parse_args(arguments)
    except SystemExit:
        return OK  # the help was printed: errors are raised as InvalidRequest
    if options.version:
        answer_on_stdout().write(f"llm-local {__version__}\n")
        return OK
    if options.verb is None:
        messages.block(parser.format_help())
        return USAGE
    VERBS[options.verb].run(options, messages)
    return OK


def _parser() -> Parser:
    parser = Parser(prog="llm-local", description="Run open language models on your own machine.")
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    _add_debug(parser, default=False)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for word, verb in VERBS.items():
        own = verbs.add_parser(word, help=verb.help, description=f"{verb.help.capitalize()}.")
        verb.add_options(own)
        # SUPPRESS: the verb's own default must not undo a --debug given before the verb.
        _add_debug(own, default=argparse.SUPPRESS)
    return parser


def _add_debug(parser: argparse.ArgumentParser, default: object) -> None:
    parser.add_argument(
        "--debug", action="store_true", default=default, help="show a traceback when it fails"
    )


def _unknown(word: str) -> InvalidRequest:
    # Late: only a mistake needs it.
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), VERBS, n=1)
    hint = f"Did you mean `llm-local {near[0]}`?" if near else f"The verbs are: {', '.join(VERBS)}."
    return InvalidRequest(f"There is no verb {word!r}.", hint)


if __name__ == "__main__":
    sys.exit(main())
