"""Which model a request means. Callers name models as people do everywhere else, but for two things: a folder is no
name to them, and what is not on this machine is not fetched for them. The service's own model is exempt from both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from llm_local.config import Config
from llm_local.errors import LocalLLMError, ModelCorrupt, ModelNotFound
from llm_local.settings.sources import Origin
from llm_local.store.given_names import find_given
from llm_local.store.library import find_model
from llm_local.store.names import STARTER, did_you_mean, parse_name, shown
from llm_local.store.snapshots import local_models

__all__ = ["ModelKey", "WantedModel", "check_here", "wanted_model"]

_PATH_STARTS = (".", "/", "~", "\\")


@dataclass(frozen=True, slots=True)
class ModelKey:
    """What tells models in memory apart: two names of one model are one key."""

    ref: str
    revision: str | None = None
    embeds: bool = False

    def __str__(self) -> str:
        return self.ref if self.revision is None else f"{self.ref}@{self.revision}"


@dataclass(frozen=True, slots=True)
class WantedModel:
    """A model by the name it was asked for, and the settings to open it with. `is_default`: the service's own."""

    name: str
    key: ModelKey
    config: Config
    is_default: bool


def wanted_model(config: Config, name: str | None, *, embeds: bool = False) -> WantedModel:
    """What `name` means; None is the model of `config`. Looks at the disk, but for no model's files.

    Raises:
        InvalidRequest: that is no name. ModelNotFound: no model can have it, or it is a folder.
    """
    if name is None or name == config.model_id:
        parsed = parse_name(config.model_id)
        ref = parsed.ref if parsed.path is None else str(parsed.path.resolve())
        return WantedModel(config.model_id, ModelKey(ref, parsed.revision, embeds), config, is_default=True)
    given = find_given(name.partition("@")[0])
    if given is None and name != STARTER and _is_place(name):
        raise ModelNotFound(
            f"There is no model called {shown(name)}; a folder is no name here.",
            did_you_mean(name.strip("./~\\"), local_models())
            or "See which names there are with `llm-local list`.",
        )
    parsed = parse_name(name)
    ref = parsed.ref if parsed.path is None else str(parsed.path.resolve())
    own = dataclasses.replace(
        config,
        model_id=name,
        draft_model=None,  # that one guesses ahead for the other model
        offline=True,
        origins={**config.origins, "model_id": Origin("flag", "model", "the request")},
    )
    default = wanted_model(config, None, embeds=embeds)
    key = ModelKey(ref, parsed.revision, embeds)
    if key == default.key:
        return dataclasses.replace(default, name=name)
    return WantedModel(name, key, own, is_default=False)


def check_here(wanted: WantedModel) -> Path | None:
    """The folder of a model that is on this machine; None of the service's own, which may have to be fetched.

    Raises:
        ModelNotFound: it is not here, or not whole. ModelCorrupt: it is damaged.
    """
    if wanted.is_default:
        return None
    model = find_model(wanted.name)
    if model.state == "complete":
        return model.folder
    kind: type[LocalLLMError] = ModelCorrupt if model.state == "corrupt" else ModelNotFound
    raise kind(
        f"{wanted.name} cannot be loaded: {model.fault}.", f"Fetch it with `llm-local pull {wanted.name}`."
    )


def _is_place(name: str) -> bool:
    if name.startswith(_PATH_STARTS):
        return True
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):  # too long for this file system, or no path at all
        return False
