"""The first thing a chat does, before anything heavy is imported: see to signals and streams."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from llm_local import __version__
from llm_local.errors import LocalLLMError
from llm_local.repl.flags import make_parser
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.chat_signals import ChatSignals
from llm_local.terminal.exit_codes import OK, error_line, exit_code
from llm_local.terminal.streams import STDIN, STDOUT, AnswerWriter, Messages, hold_standard_streams
from llm_local.terminal.terminal_modes import TerminalModes

__all__ = ["own_stdout", "run_chat", "run_program"]


def run_program(
    words: list[str], prog: str, description: str, make_front: Callable[[FrontParts], ChatFront]
) -> int:
    """Chat as the command-line `words` say, in a program of its own, and return the exit code."""
    closed = hold_standard_streams()
    messages = Messages.on_stderr()
    try:
        if STDOUT in closed:
            raise LocalLLMError("stdout is closed, so the answers have nowhere to go.")
        parser = make_parser(prog, description)
        args = parser.parse(words)
        if args.help or args.version:
            text = parser.format_help() if args.help else f"llm-local {__version__}\n"
            AnswerWriter.keep_stdout().write(text)
            return OK
    except Exception as error:
        messages.note(error_line(error))
        return exit_code(error)
    return run_chat(args, make_front, messages)


def run_chat(
    args: argparse.Namespace, make_front: Callable[[FrontParts], ChatFront], messages: Messages
) -> int:
    """Chat as `args` say, on the standard streams of this process, and return the exit code. No failure escapes."""
    modes = TerminalModes()
    signals = ChatSignals(messages, modes.restore)
    signals.install()
    answer = own_stdout()
    # Late: from here on a signal is answered in order, also while the rest is imported.
    from llm_local.repl.launch import Launch

    return Launch(make_front, messages, signals, modes, answer).run(args)


def own_stdout() -> AnswerWriter:
    """Stdout for the answers alone, unless a person looks at it: there whatever a library prints is seen anyway.

    Then descriptor 1 stays the terminal, which line editors insist on.
    """
    if os.isatty(STDIN) and os.isatty(STDOUT):
        return AnswerWriter.keep_stdout()
    return AnswerWriter.take_stdout()
