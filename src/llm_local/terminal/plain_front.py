"""The plain front of a chat: lines in, lines out."""

from __future__ import annotations

from llm_local.home import data_home
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.history_file import HISTORY_NAME, HistoryFile
from llm_local.terminal.line_editor import load_line_editor
from llm_local.terminal.plain_input import PlainInput
from llm_local.terminal.plain_view import PlainView

__all__ = ["plain_front"]


def plain_front(parts: FrontParts) -> ChatFront:
    """Make it; works on any terminal, and without one."""
    path = data_home() / HISTORY_NAME if parts.keeps_history else None
    history = HistoryFile(path, parts.messages.note)
    said = PlainInput(parts.messages, parts.signals, parts.modes, editor=lambda: load_line_editor(history))
    view = PlainView(
        parts.answer,
        parts.messages,
        read_line=said.ask if said.interactive else None,
        show_thinking=parts.show_thinking,
    )
    return ChatFront(said, view)
