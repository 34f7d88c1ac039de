"""The menu of models: what there is to choose, as data, and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llm_local.store.catalog import catalog_models
from llm_local.store.library import StoredModel, files_of, list_models, total_bytes
from llm_local.terminal.chat_view import ChatView, Choice
from llm_local.terminal.sizes import format_bytes

__all__ = ["choose_model", "model_choices"]

COLUMNS: Final = ("model", "size", "where")


def model_choices(current: str) -> list[Choice]:
    """The models on this machine that are here whole, then those of the list that ships. `current` is marked."""
    choices = []
    refs = set()
    for model in list_models():
        if model.state == "complete":
            choices.append(
                Choice(model.name, (model.name, _size(model), "on this machine"), model.name == current)
            )
            refs.add(model.ref)
    for listed in catalog_models():
        if listed.id not in refs:
            size = f"about {format_bytes(listed.download_bytes)}"
            where = f"to be fetched{f'; {listed.note}' if listed.note else ''}"
            is_current = current in (listed.name, listed.id)
            choices.append(Choice(listed.name, (listed.name, size, where), is_current))
    if not any(one.is_current for one in choices):
        choices.append(Choice(current, (current, "", "to be fetched, or a directory"), True))
    return choices


def choose_model(view: ChatView, choices: Sequence[Choice]) -> str | None:
    """The model that somebody picks, or None.

    Raises:
        InvalidRequest: there is no person to ask.
    """
    return view.choose("Which model? (* is the one in use)", COLUMNS, choices)


def _size(model: StoredModel) -> str:
    try:
        return format_bytes(total_bytes(files_of(model)))
    except OSError:  # gone since it was listed, or not ours to look at
        return "?"
