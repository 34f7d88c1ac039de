"""Both sides of a terminal for a chat, and what they are made of. `plain_front` and `rich_front` make one each."""

from __future__ import annotations

from dataclasses import dataclass

from llm_local.terminal.chat_signals import ChatSignals
from llm_local.terminal.chat_view import ChatInput, ChatView
from llm_local.terminal.streams import AnswerWriter, Messages
from llm_local.terminal.terminal_modes import TerminalModes

__all__ = ["ChatFront", "FrontParts"]


@dataclass(frozen=True, slots=True)
class FrontParts:
    """What a door hands to whoever makes a front.

    `signals` are installed; whoever reads does it inside of `signals.reading()`, or keeps Ctrl-C to itself while it
    reads in raw mode. `keeps_history` is False where nothing that is typed may be written to disk. `enter_submits` is
    about editors of several lines.
    """

    answer: AnswerWriter
    messages: Messages
    signals: ChatSignals
    modes: TerminalModes
    show_thinking: bool = False
    keeps_history: bool = True
    enter_submits: bool = False


@dataclass(frozen=True, slots=True)
class ChatFront:
    """What a chat reads from and draws on."""

    input: ChatInput
    view: ChatView

    def close(self) -> None:
        """Give the terminal back. Harmless when repeated."""
        self.input.close()
        self.view.close()
