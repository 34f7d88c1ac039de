"""Loaders of plug-ins: another weight format, or an architecture that transformers does not know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from llm_local.errors import InvalidRequest, LocalLLMError, PluginFailed
from llm_local.plugins import LOADERS, Plugin, load_plugins
from llm_local.specs import ModelSpec

__all__ = ["Claim", "WeightLoader", "check_plugin", "claim_of", "load_plugged"]


class WeightLoader(Protocol):
    """What an entry point of the group `llm_local.loaders` names."""

    def claims(self, path: Path) -> bool:
        """Whether the model in this folder is for this loader. Asked for every model, before llm-local looks itself."""

    def load(self, path: Path, spec: ModelSpec) -> tuple[Any, Any]:
        """Tokenizer and model, as transformers has them, on the device and in the dtype that `spec` asks for."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The plug-in that loads a folder."""

    plugin: Plugin
    loader: WeightLoader


def check_plugin(plugin: Plugin, value: Any) -> WeightLoader:
    """What a plug-in offers as a loader.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, type):
        raise ValueError("it is a class; name an object made of it")
    missing = [name for name in ("claims", "load") if not callable(getattr(value, name, None))]
    if missing:
        raise ValueError(f"it has no method {' and no method '.join(missing)}")
    return value


def claim_of(path: Path) -> Claim | None:
    """The allowed plug-in that wants to load the model in this folder, or None.

    Raises:
        PluginFailed: two want to, or one failed over the question.
    """
    claims = [
        Claim(plugin, loader)
        for plugin, loader in load_plugins(LOADERS, check_plugin)
        if _guarded(plugin, partial(_claims, loader, path))
    ]
    if len(claims) > 1:
        names = " and ".join(f"the {claim.plugin}" for claim in claims)
        raise PluginFailed(f"Both {names} claim the model in {path}.", "Allow only one of them in PLUGINS.")
    return claims[0] if claims else None


def load_plugged(claim: Claim, spec: ModelSpec, path: Path) -> tuple[Any, Any]:
    """Tokenizer and model, ready for inference.

    Raises:
        InvalidRequest: weights are to be packed, which only weights of llm-local's own loaders can be.
        PluginFailed: the plug-in failed, or did not keep what `spec` asks for.
    """
    if spec.quantization not in ("auto", "none"):
        raise InvalidRequest(
            f"Weights that the {claim.plugin} loads cannot be packed to {spec.quantization}.",
            "Leave the quantization out.",
            param="quantization",
        )
    made = _guarded(claim.plugin, partial(claim.loader.load, path, spec))
    if not isinstance(made, Sequence) or len(made) != 2:
        raise PluginFailed(f"The {claim.plugin} gave no tokenizer and model.")
    tokenizer, model = made
    device, dtype = _guarded(claim.plugin, lambda: (model.device.type, str(model.dtype)))
    wanted = {"device": (spec.device, device), "dtype": (spec.dtype, dtype.removeprefix("torch."))}
    for name, (asked, got) in wanted.items():
        if asked not in ("auto", got):
            raise PluginFailed(f"The {claim.plugin} gave a model of {name} {got}, but {asked} was asked for.")
    return tokenizer, _guarded(claim.plugin, lambda: model.eval().requires_grad_(False))


def _claims(loader: WeightLoader, path: Path) -> bool:
    return bool(loader.claims(path))  # here, because even that is foreign code


def _guarded(plugin: Plugin, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (LocalLLMError, KeyboardInterrupt):
        raise
    except BaseException as error:  # foreign code may raise anything, SystemExit too
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise PluginFailed(
            f"The {plugin} failed: {reason}.", "Report it to whoever made that package."
        ) from error
