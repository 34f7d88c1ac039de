"""The model of a chat, and how another one takes its place: the old one stays where the new one cannot be opened."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from llm_local.chat.models import ChatModel, OpenModel
from llm_local.errors import InsufficientMemory, InvalidRequest, LocalLLMError
from llm_local.specs import ModelInfo

__all__ = ["ModelSlot"]


class _NoGenerator:
    """Stands where a generator was."""

    runs_as = "nothing; no model is open"
    template_source = ""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InvalidRequest("No model is open.", "Open one with /switch NAME.", param="model")


@dataclass(frozen=True, slots=True)
class _ClosedModel:
    """What is left of a model that was closed for another, when neither could be opened."""

    info: ModelInfo
    generation_defaults: Mapping[str, Any]
    generator: Any = _NoGenerator()
    load_s: float = 0.0
    notices: tuple[str, ...] = ()


class ModelSlot:
    """Holds the one reference to the open model that a chat has."""

    def __init__(self, model: ChatModel, open_model: OpenModel | None) -> None:
        self.model: ChatModel = model
        """The open model. Where one was closed for another, and neither could be opened, all questions are refused."""
        self.open_model = open_model

    def switch(self, ref: str) -> tuple[str, ...]:
        """Open the model `ref` in place of this one; gives lines that people should see.

        The old one is closed first only where both do not fit in memory together; it is opened again where that does
        not help.

        Raises:
            InvalidRequest: this chat cannot open models.
            LocalLLMError: the model cannot be opened.
        """
        open_model = self.open_model
        if open_model is None:
            raise InvalidRequest("This chat has one model and cannot switch.", param="model")
        try:
            self.model = open_model(ref)
        except InsufficientMemory as error:
            if isinstance(self.model, _ClosedModel) or not _helps(self.model, error):
                raise
        else:
            return self.model.notices
        old = self.model.info.ref
        self.model = _ClosedModel(self.model.info, self.model.generation_defaults)
        gc.collect()
        try:
            self.model = open_model(ref)
        except BaseException as error:
            # also an interrupt: whoever stops the loading wants to go on with what was there
            self.model = _open_again(open_model, old, ref, error)
            if isinstance(error, LocalLLMError):
                error.hint = f"{error.hint} {old} was closed for it, and is open again.".strip()
            raise
        return (
            f"{old} was closed first, because both models together do not fit in memory.",
            *self.model.notices,
        )


def _helps(model: ChatModel, error: InsufficientMemory) -> bool:
    """Whether closing a model makes room enough."""
    return error.have_bytes < error.need_bytes <= error.have_bytes + model.info.weight_bytes


def _open_again(open_model: OpenModel, old: str, ref: str, error: BaseException) -> ChatModel:
    try:
        return open_model(old)
    except LocalLLMError as again:
        raise LocalLLMError(
            f"{ref} cannot be opened ({error}), and neither can {old} again, which was closed for it ({again}).",
            "Open another one with /switch NAME.",
            kind=getattr(error, "kind", None),
        ) from error
