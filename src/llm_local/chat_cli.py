"""The plain chat: `./chat.sh`, or `python -m llm_local.chat_cli`. See docs/chat.md."""

from __future__ import annotations

import sys

from llm_local.repl.start import run_program
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.exit_codes import leave

__all__ = ["main"]


def main(words: list[str]) -> int:
    """Chat as the command-line `words` say, and return the exit code."""
    about = "Chat with a language model on this machine, in plain lines."
    return run_program(words, "chat.sh", about, _plain)


def _plain(parts: FrontParts) -> ChatFront:
    # Late: help needs none of it.
    from llm_local.terminal.plain_front import plain_front

    return plain_front(parts)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
