"""The menu of models: what there is to choose, as data, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_local.store.library import files_of, list_models, total_bytes
from llm_local.terminal.chat_view import ChatView, Choice
from llm_local.terminal.sizes import format_bytes

__all__ = ["choose_model", "local_choices"]

COLUMNS: Final = ("model", "size", "where")


def local_choices(current: str) -> list[Choice]:
    """The models on this machine that are here whole; `current` is marked, and there too where it is not."""
    choices = []
    for model in list_models():
        if model.state == "complete":
            size = format_bytes(total_bytes(files_of(model)))
            choices.append(Choice(model.name, (model.name, size, "on this machine"), model.name == current))
    if not any(one.is_current for one in choices):
        choices.append(Choice(current, (current, "", "to be fetched, or a directory"), True))
    return choices


def choose_model(view: ChatView, choices: Sequence[Choice]) -> str | None:
    """The model that somebody picks, or None.

    Raises:
        InvalidRequest: there is no person to ask.
    """
    return view.choose("Which model? (* is the one in use)", COLUMNS, choices)
