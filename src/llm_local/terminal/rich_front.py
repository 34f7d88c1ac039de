"""The rich front of a chat. Nothing but this module and what it imports needs rich and prompt-toolkit."""

from __future__ import annotations

from llm_local.home import data_home
from llm_local.terminal.chat_front import ChatFront, FrontParts
from llm_local.terminal.history_file import HISTORY_NAME
from llm_local.terminal.rich_input import RichInput
from llm_local.terminal.rich_screen import RichScreen
from llm_local.terminal.rich_view import RichView

__all__ = ["HISTORY_NAME", "rich_front"]


def rich_front(parts: FrontParts) -> ChatFront:
    """Make it; stdin and stdout have to be a terminal that understands escape sequences."""
    screen = RichScreen(parts.answer, parts.modes)
    said = RichInput(
        history_path=data_home() / HISTORY_NAME if parts.keeps_history else None,
        enter_submits=parts.enter_submits,
        on_notice=lambda text: view.notice(text),
    )
    view = RichView(screen, said, show_thinking=parts.show_thinking)
    return ChatFront(said, view)
