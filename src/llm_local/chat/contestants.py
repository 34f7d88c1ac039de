"""Who takes part in a comparison: a model by name, the one of the chat, each perhaps with options of its own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from llm_local.chat.compare import Contestant, Ready
from llm_local.chat.models import ChatModel, OpenModel
from llm_local.chat.sampling_choices import OptionChoices, check_choices
from llm_local.errors import InvalidRequest

__all__ = ["make_contestant"]


def make_contestant(
    text: str, choices: OptionChoices, model: ChatModel | None, open_model: OpenModel | None
) -> Contestant:
    """The contestant that `MODEL`, `NAME=VALUE` or `MODEL,NAME=VALUE,...` names.

    `model` is the open one, which stays open and answers where no other is named; `choices` are its options.

    Raises:
        InvalidRequest: an option or its value is not allowed, or no model is named and none is open.
    """
    first, *rest = text.split(",")
    ref, settings = ("", [first, *rest]) if "=" in first else (first, rest)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InvalidRequest(f"{setting[:60]!r} in {text[:60]!r} is no NAME=VALUE.", param="model")
        choices = choices.changed(name, value)
    if model is not None and ref in ("", model.info.ref):
        return Contestant(text or model.info.ref, partial(_use_open, model, choices))
    if open_model is None or not ref:
        raise InvalidRequest(f"There is no model to compare in {text[:60]!r}.", param="model")
    return Contestant(text, partial(_open_another, ref, open_model, choices))


def _ready(model: ChatModel, choices: OptionChoices) -> Ready:
    check_choices(choices, model)
    options = choices.options(model.generation_defaults, draw_seed=True)
    return Ready(model.generator, options, choices.explicit_cap)


@contextmanager
def _use_open(model: ChatModel, choices: OptionChoices) -> Iterator[Ready]:
    yield _ready(model, choices)


@contextmanager
def _open_another(ref: str, open_model: OpenModel, choices: OptionChoices) -> Iterator[Ready]:
    gc.collect()  # a model is a knot of references, and what the last one took is needed now
    yield _ready(open_model(ref), choices)
