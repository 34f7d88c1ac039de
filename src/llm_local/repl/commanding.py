"""The commands of a chat and what completes them, as the loop uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llm_local.chat.commands import CommandContext, CommandTable
from llm_local.chat.session import ChatSession
from llm_local.store.library import list_models
from llm_local.terminal.chat_view import Candidate

__all__ = ["command_context", "completer"]


def command_context(session: ChatSession) -> CommandContext:
    """What commands work on."""
    return CommandContext(session, CommandTable(()), _model_names)


def completer(context: CommandContext) -> Callable[[str], Sequence[Candidate]]:
    """What gives the candidates for a line up to the cursor."""
    return lambda line: ()


def _model_names() -> list[str]:
    return [model.name for model in list_models() if model.state == "complete"]
