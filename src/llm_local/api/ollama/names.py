"""Models by Ollama's names: `model[:tag]`, where the tag is `latest` unless it is said, in any letter case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_local.errors import InvalidRequest, ModelNotFound
from llm_local.service import Service
from llm_local.store.catalog import catalog_models

if TYPE_CHECKING:
    from llm_local.loaders.card import ModelCard

__all__ = ["asked_name", "bare_name", "card_of", "resolved_name", "tagged_name"]

_LATEST: Final = ":latest"
_HUB: Final = ("hf.co/", "huggingface.co/")


def asked_name(*given: str | None) -> str:
    """The first name that is given.

    Raises:
        InvalidRequest: none is.
    """
    for name in given:
        if name:
            return name
    raise InvalidRequest("model is required", param="model", kind="missing_field")


def bare_name(name: str) -> str:
    """A name without what only Ollama's names have: the tag latest, the hub's address, and colons before sizes."""
    bare = name[: -len(_LATEST)] if name.lower().endswith(_LATEST) else name
    for start in _HUB:
        bare = bare.removeprefix(start)
    dashed = bare.replace(":", "-", 1).lower()
    if dashed != bare and any(one.name == dashed for one in catalog_models()):
        return dashed
    return bare


def tagged_name(name: str) -> str:
    """A name as Ollama lists it."""
    return name if ":" in name else name + _LATEST


async def resolved_name(service: Service, asked: str) -> str:
    """Our name of a model; what no model here is called stays as it is.

    Raises:
        InvalidRequest: the name is empty.
    """
    bare = bare_name(asked_name(asked))
    if bare == service.config.model_id or any(one.name == bare for one in service.loaded()):
        return bare
    names = [one.name for one in await service.models()]
    if bare in names:
        return bare
    return next((name for name in names if name.lower() == bare.lower()), bare)


async def card_of(service: Service, name: str) -> ModelCard | None:
    """What a model's files tell; None where they are not here yet.

    Raises:
        ModelNotFound: there is no such model.
    """
    try:
        return (await service.show(name)).card
    except ModelNotFound:
        if name != service.config.model_id:
            raise
        return None  # the service's own is fetched when it is first asked for
