"""The first thing a chat does, before anything heavy is imported: see to signals and streams."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.chat_signals import ChatSignals
from llm_local.terminal.streams import STDIN, STDOUT, AnswerWriter, Messages
from llm_local.terminal.terminal_modes import TerminalModes

__all__ = ["run_chat"]


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
