"""`llm-local VERB`: finds the verb, runs it, and turns every failure into one line and an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

from llm_local import __version__
from llm_local.errors import InvalidRequest, LocalLLMError
from llm_local.terminal.exit_codes import OK, USAGE, error_line, exit_code, leave
from llm_local.terminal.flag_parser import FlagParser
from llm_local.terminal.streams import STDOUT, AnswerWriter, Messages, hold_standard_streams

__all__ = ["VERBS", "Verb", "VerbModule", "find_verb", "main", "verb_parser"]


class VerbModule(Protocol):
    """A module of this package that is a verb."""

    def add_flags(self, parser: argparse.ArgumentParser) -> None:
        """Declare its flags."""

    def run(self, args: argparse.Namespace, answer: AnswerWriter, messages: Messages) -> int | None:
        """Do it, writing to stdout and stderr; None is exit code 0."""


@dataclass(frozen=True, slots=True)
class Verb:
    """One word after `llm-local`, and other words for the same. Its module is imported only when it is used.

    `on_shelf` is True for one that looks where models are kept, and leaves the settings to us: HF_HOME says where.
    """

    help: str
    module: str
    synonyms: tuple[str, ...] = ()
    on_shelf: bool = False

    def load(self) -> VerbModule:
        """The module."""
        return cast(VerbModule, import_module(f"llm_local.cli.{self.module}"))


VERBS: Final[Mapping[str, Verb]] = {
    "bench": Verb("measure how fast this machine runs a model", "bench"),
    "chat": Verb("talk with a model; conversations are kept, and go on", "chat"),
    "compare": Verb("ask several models or settings the same, and show the answers side by side", "compare"),
    "completion": Verb("print what makes bash, zsh or fish complete llm-local's words", "completion"),
    "config": Verb("show the settings that hold, and where each came from", "settings"),
    "cp": Verb("give a model a second name; nothing is copied", "cp", ("copy",), on_shelf=True),
    "decide": Verb("score answers by their exact probabilities, and say the best", "decide"),
    "doctor": Verb("look at this machine: what runs here, and what to mend", "doctor"),
    "embed": Verb("turn texts into vectors, as the model's repository says", "embed"),
    "history": Verb("list, search, show, export, rename and remove conversations", "history"),
    "import": Verb(
        "give a name to a folder or a GGUF file, which stays where it is", "import_model", on_shelf=True
    ),
    "keys": Verb("list, add and remove the API keys that servers of this machine accept", "keys"),
    "list": Verb("list the models on this machine", "list_models", ("ls",), on_shelf=True),
    "plugins": Verb("list the plug-ins that are installed, and which may be loaded", "plugins"),
    "pull": Verb(
        "fetch a model from the hub, after a look at whether it fits here", "pull", ("download", "get")
    ),
    "ps": Verb("list the servers that run on this machine", "ps"),
    "rm": Verb("remove models, and free what no other model needs", "rm", ("remove",), on_shelf=True),
    "run": Verb(
        "ask a model once, or chat where no prompt is given; all but the answer goes to stderr", "run"
    ),
    "search": Verb("look for models on the hub", "search", ("find",)),
    "serve": Verb(
        "serve models of this machine over HTTP, to curl and to other programs", "serve", ("deploy",)
    ),
    "show": Verb("show what a model on this machine is, by its files", "show", ("info",), on_shelf=True),
    "stop": Verb("have servers on this machine finish their answers, and end", "stop"),
    "verify": Verb("compare every byte of a model with what it should be", "verify", on_shelf=True),
    "version": Verb("show the versions of llm-local and of what it runs on", "version"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (this process's own by default) and return its exit code."""
    code = _run(list(sys.argv[1:] if argv is None else argv))
    if argv is None and "torch" in sys.modules:
        leave(code)  # to take down an interpreter with torch in it takes a second
    return code


def _run(words: list[str]) -> int:
    closed = hold_standard_streams()
    # Not `take_stdout`: a verb that imports a library which might print takes it itself.
    answer = AnswerWriter(io.FileIO(STDOUT, "w", closefd=False))
    messages = Messages.on_stderr()
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
    name = find_verb(word)
    if name is None:
        raise _unknown(word)
    words = list(words)
    words.remove(word)
    parser = verb_parser(name)
    flags = words[: words.index("--")] if "--" in words else words
    if not {"-h", "--help"}.isdisjoint(flags):  # before what the verb cannot do without
        answer.write(parser.format_help())
        return OK
    args = parser.parse_intermixed_args(words)  # flags may stand between MODEL and PROMPT
    if VERBS[name].on_shelf:
        _adopt_settings(messages)
    return VERBS[name].load().run(args, answer, messages) or OK


def _adopt_settings(messages: Messages) -> None:
    """Have the store see what the settings say, as it does where a model is loaded."""
    # Late: help needs none of it.
    from llm_local.config import load_config

    config = load_config()
    os.environ.update(config.hub_environment())
    for warning in config.warnings:
        messages.note(f"warning: {warning}")


def find_verb(word: str) -> str | None:
    """The verb that `word` is, or is a synonym of."""
    return next((name for name, verb in VERBS.items() if word == name or word in verb.synonyms), None)


def verb_parser(name: str) -> FlagParser:
    """What reads the command line of a verb."""
    verb = VERBS[name]
    also = f" (also: {', '.join(verb.synonyms)})" if verb.synonyms else ""
    parser = FlagParser(prog=f"llm-local {name}", description=f"{verb.help[0].upper()}{verb.help[1:]}{also}.")
    verb.load().add_flags(parser)
    _add_common_flags(parser)
    return parser


def _without_verb(words: list[str], answer: AnswerWriter, messages: Messages) -> int:
    named = {", ".join([name, *verb.synonyms]): verb.help for name, verb in VERBS.items()}
    width = max(map(len, named))
    parser = FlagParser(
        prog="llm-local",
        usage="llm-local VERB [FLAGS]",
        description="Run open language models on your own machine.",
        epilog="verbs:\n" + "\n".join(f"  {names:<{width}}  {text}" for names, text in named.items()),
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

    known = [one for name, verb in VERBS.items() for one in (name, *verb.synonyms)]
    near = get_close_matches(word.lower(), known, n=1)
    hint = f"Did you mean `llm-local {near[0]}`?" if near else f"The verbs are: {', '.join(VERBS)}."
    return InvalidRequest(f"There is no verb {word!r}.", hint)


if __name__ == "__main__":
    sys.exit(main())
