"""The rich chat: `./chat-rich.sh`, or `python -m llm_local.chat_cli_rich`. See docs/chat.md."""

from __future__ import annotations

import sys

from llm_local.repl.start import run_program
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.exit_codes import leave

__all__ = ["main"]


def main(words: list[str]) -> int:
    """Chat as the command-line `words` say, and return the exit code."""
    about = (
        "Chat with a language model on this machine, with Markdown, colors and an editor for what you type."
    )
    return run_program(words, "chat-rich.sh", about, _best)


def _best(parts: FrontParts) -> ChatFront:
    # Late: help needs none of it.
    from llm_local.terminal.fronts import best_front

    return best_front(parts)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
