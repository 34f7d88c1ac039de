"""`llm-local VERB`: finds the verb, runs it, and turns every failure into one line and an exit code."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llm_local import __version__
from llm_local.cli import bench, decide, doctor, plugins, settings, version
from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.terminal.exit_codes import OK, USAGE, error_line, exit_code
from llm_local.terminal.flags import FlagParser
from llm_local.terminal.streams import STDOUT, AnswerWriter, Messages, hold_standard_streams

__all__ = ["VERBS", "Verb", "main"]


@dataclass(frozen=True, slots=True)
class Verb:
    """One word after `llm-local`: its help, its flags, and what it does. `run` writes to stdout and stderr."""

    help: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, AnswerWriter, Messages], None]


VERBS: Final[Mapping[str, Verb]] = {
    "bench": Verb("measure how fast this machine runs a model", bench.add_flags, bench.run),
    "config": Verb("show the settings that hold, and where each came from", settings.add_flags, settings.run),
    "decide": Verb(
        "score answers by their exact probabilities, and say the best", decide.add_flags, decide.run
    ),
    "doctor": Verb("look at this machine: what runs here, and what to mend", doctor.add_flags, doctor.run),
    "plugins": Verb(
        "list the plug-ins that are installed, and which may be loaded", plugins.add_flags, plugins.run
    ),
    "version": Verb("show the versions of llm-local and of what it runs on", version.add_flags, version.run),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (this process's own by default) and return its exit code."""
    closed = hold_standard_streams()
    # Not `take_stdout`: no verb so far imports a library that might print.
    answer = AnswerWriter(io.FileIO(STDOUT, "w", closefd=False))
    messages = Messages.on_stderr()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if STDOUT in closed:
            raise LocalLLMError("stdout is closed, so there is nowhere to write to.")
        return _dispatch(words, answer, messages)
    except BrokenPipeError as error:
        return exit_code(error)
    except KeyboardInterrupt as error:
        messages.note("interrupted")
        return exit_code(error)
    except Exception as error:
        if "--debug" in words:  # by the word, since what failed may be the parsing
            # Late: a command that works has no traceback to print.
            import traceback

            messages.block(traceback.format_exc())
        messages.note(error_line(error))
        return exit_code(error)


def _dispatch(words: list[str], answer: AnswerWriter, messages: Messages) -> int:
    word = next((word for word in words if not word.startswith("-")), None)
    if word is None:
        return _without_verb(words, answer, messages)
    if word not in VERBS:
        raise _unknown(word)
    words = list(words)
    words.remove(word)
    parser = FlagParser(prog=f"llm-local {word}", description=f"{VERBS[word].help.capitalize()}.")
    VERBS[word].add_flags(parser)
    _add_common_flags(parser)
    args = parser.parse_args(words)
    if args.help:
        answer.write(parser.format_help())
    else:
        VERBS[word].run(args, answer, messages)
    return OK


def _without_verb(words: list[str], answer: AnswerWriter, messages: Messages) -> int:
    width = max(map(len, VERBS))
    parser = FlagParser(
        prog="llm-local",
        usage="llm-local VERB [FLAGS]",
        description="Run open language models on your own machine.",
        epilog="verbs:\n" + "\n".join(f"  {word:<{width}}  {verb.help}" for word, verb in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    _add_common_flags(parser)
    args = parser.parse_args(words)
    if not (args.help or args.version):
        messages.block(parser.format_help())
        return USAGE
    answer.write(parser.format_help() if args.help else f"llm-local {__version__}\n")
    return OK


def _add_common_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("-h", "--help", action="store_true", help="show this help")


def _unknown(word: str) -> InvalidRequest:
    # Late: only a mistake needs it.
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), VERBS, n=1)
    hint = f"Did you mean `llm-local {near[0]}`?" if near else f"The verbs are: {', '.join(VERBS)}."
    return InvalidRequest(f"There is no verb {word!r}.", hint)


if __name__ == "__main__":
    sys.exit(main())
