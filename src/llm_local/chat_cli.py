"""The plain chat: `./chat.sh`, or `python -m llm_local.chat_cli`. See docs/chat.md."""

from __future__ import annotations

import sys

from llm_local import __version__
from llm_local.errors import LocalLLMError
from llm_local.repl.flags import make_parser
from llm_local.repl.start import run_chat
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.exit_codes import OK, error_line, exit_code, leave
from llm_local.terminal.streams import STDOUT, AnswerWriter, Messages, hold_standard_streams

__all__ = ["main"]


def main(words: list[str]) -> int:
    """Chat as the command-line `words` say, and return the exit code."""
    closed = hold_standard_streams()
    messages = Messages.on_stderr()
    try:
        if STDOUT in closed:
            raise LocalLLMError("stdout is closed, so the answers have nowhere to go.")
        parser = make_parser("chat.sh", "Chat with a language model on this machine, in plain lines.")
        args = parser.parse(words)
        if args.help or args.version:
            text = parser.format_help() if args.help else f"llm-local {__version__}\n"
            AnswerWriter.keep_stdout().write(text)
            return OK
    except Exception as error:
        messages.note(error_line(error))
        return exit_code(error)
    return run_chat(args, _plain, messages)


def _plain(parts: FrontParts) -> ChatFront:
    # Late: help needs none of it.
    from llm_local.terminal.plain_front import plain_front

    return plain_front(parts)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
