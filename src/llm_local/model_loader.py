"""The loader door: from the name of a model to tokenizer and weights in memory.

`resolve_model` finds the files, asking the hub only where they are not on this disk; `load_tokenizer_and_model` reads
them and asks nobody.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_local.errors import HubUnavailable, ModelNotFound
from llm_local.events import Progress
from llm_local.loaders.configuration import (
    ModelConfig,
    check_layers,
    context_length,
    end_token_ids,
    generation_defaults,
    read_config,
)
from llm_local.loaders.first_import import first_import
from llm_local.loaders.packed_keys import read_ahead
from llm_local.loaders.plugged import Claim, claim_of, load_plugged
from llm_local.loaders.safetensors import Weights, read_weights
from llm_local.logs import adopt_library_logs
from llm_local.specs import ModelInfo, ModelSpec
from llm_local.store.names import STARTER, ModelName, did_you_mean, parse_name
from llm_local.store.selection import CONFIG
from llm_local.store.snapshots import find_local, local_models
from llm_local.store.usage import ModelUse, use_model

if TYPE_CHECKING:
    from llm_local.loaders.causal_lm import Checkpoint
    from llm_local.loaders.devices import Placement
    from llm_local.loaders.prepared import Describe, Start

__all__ = ["LoadedModel", "ResolvedModel", "get_model_info", "load_tokenizer_and_model", "resolve_model"]

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model whose files are on this disk. `notice` says in one line when it is not the one that was meant."""

    spec: ModelSpec
    path: Path
    notice: str = ""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Tokenizer and weights in memory, ready for inference.

    - `end_token_ids`: every token that ends a reply; all below `info.vocab_size`.
    - `generation_defaults`: how the model's authors want it sampled, by the names of GenerationOptions and `do_sample`.
    - `load_s`: seconds from the call to now.
    - `notices`: what the user should know about how it was loaded, one line each.
    - `use`: while this lives, nobody removes the files.
    - `keep`: takes what describes the engine that was made of it, so that the next start is a quick one.

    From a quick start `tokenizer` and `model` are what text and engine need of them, and not transformers' own.
    """

    tokenizer: Any
    model: Any
    info: ModelInfo
    end_token_ids: frozenset[int]
    generation_defaults: Mapping[str, Any]
    load_s: float
    notices: tuple[str, ...] = ()
    keep: Callable[[Describe], None] | None = None
    use: ModelUse | None = None


def resolve_model(
    spec: ModelSpec, *, explicit: bool, offline: bool = False, on_progress: OnProgress | None = None
) -> ResolvedModel:
    """Find the files of `spec`, downloading them where they are not on this disk, if they can be loaded then.

    A model that was not chosen explicitly gives way to the starter when the hub cannot be reached, and `notice` says
    so. A model that the user named is that model or an error.

    Raises:
        InvalidRequest, ModelNotFound: the name is wrong, or nothing has it.
        HubUnavailable: it is not here, and the hub is off or cannot be reached.
        LocalLLMError: all that `store.pulling.pull` and `loaders.before_fetch.check_before_fetch` raise.
    """
    name = parse_name(spec.ref, spec.revision)
    spec = dataclasses.replace(spec, ref=name.ref, revision=name.revision)
    if name.kind != "hub":
        return ResolvedModel(spec, _starter_folder() if name.path is None else name.path)
    local = find_local(name.ref, name.revision)
    if local is not None:
        return ResolvedModel(spec, local)
    try:
        if offline:
            raise _switched_off(name)
        return ResolvedModel(spec, _fetch(name, spec, explicit=explicit, on_progress=on_progress))
    except HubUnavailable as error:
        if explicit:  # a typing error looks like any unknown name while the hub is away
            hint = f"{did_you_mean(name.ref, local_models())} {error.hint}".strip()
            raise HubUnavailable(error.message, hint) from error
        return _fall_back(spec, error)


def load_tokenizer_and_model(
    spec: ModelSpec,
    *,
    path: Path | None = None,
    on_progress: OnProgress | None = None,
    quick: bool = False,
) -> LoadedModel:
    """Load a model from `path`, or from wherever `resolve_model` finds it when the caller chose it by name.

    `quick` is for those who only generate: what an earlier start has kept replaces transformers, to the same end.
    Files are judged before torch allocates anything, so a damaged model fails within seconds.

    Raises:
        ModelNotFound, ModelCorrupt, UnsafeWeights, UnsupportedTask: the files are not there, damaged, or not for us.
        Busy: the model is being removed just now.
        PluginFailed: a plug-in claims the folder, or was asked for, and cannot be used.
        InsufficientMemory: it does not fit, by the headers of its weights.
        InvalidRequest: a device this machine does not have, a longer context than the model has, or a quantization
            that there is not, or not on this device.
    """
    began = time.perf_counter()
    if path is None:
        resolved = resolve_model(spec, explicit=True, on_progress=on_progress)
        spec, path = resolved.spec, resolved.path
    if not path.is_dir():
        raise ModelNotFound(f"There is no directory {str(path)!r}.")
    use = use_model(path)
    claim = claim_of(path)
    if claim is not None:
        return replace(_load_by_plugin(claim, spec, path, began), use=use)
    config = read_config(path)
    defaults = generation_defaults(path)
    window = context_length(config.values, spec.context_length)

    weights = read_weights(path)
    check_layers(config, len(weights.tensors))
    read_ahead(spec, config.values, weights)

    # Late: torch takes a second to import, and a wrong folder or a damaged file is known by now.
    with first_import("torch"):
        from llm_local.loaders.devices import place
        from llm_local.loaders.prepared import prepare

    placement = place(spec, weights)
    report = on_progress or (lambda event: None)
    report(Progress("loading", 0, weights.num_bytes, spec.ref))
    preparation = prepare(spec, path, config.values, weights, placement) if quick else None
    found = preparation.find(spec, path, window) if preparation else None
    if found is None:
        found = _whole_start(_Files(path, config, weights), spec, placement, window, report)
        if preparation is not None:
            found = replace(found, keep=partial(preparation.keep, found))
    report(Progress("loading", weights.num_bytes, weights.num_bytes, spec.ref))
    return LoadedModel(
        found.tokenizer,
        found.model,
        found.info,
        end_token_ids(path, config.values, found.tokenizer, found.info.vocab_size),
        defaults,
        time.perf_counter() - began,
        tuple(filter(None, (placement.notice, *found.notices))),
        found.keep,
        use,
    )


@dataclass(frozen=True, slots=True)
class _Files:
    path: Path
    config: ModelConfig
    weights: Weights


def _whole_start(
    files: _Files, spec: ModelSpec, placement: Placement, window: int, report: OnProgress
) -> Start:
    """A model through transformers' own classes."""
    # Later still: transformers takes two seconds, and a model that does not fit is refused by now.
    with first_import("transformers.modeling_utils"):
        from llm_local.loaders.causal_lm import Checkpoint, load_tokenizer, make_config
        from llm_local.loaders.model_facts import describe_model
        from llm_local.loaders.prepared import Start

    adopt_library_logs()
    path, trust = files.path, spec.trust_remote_code
    made = make_config(files.config, path, trust_remote_code=trust)
    tokenizer = load_tokenizer(path, made, trust_remote_code=trust)
    checkpoint = Checkpoint(path, files.config, made, files.weights)
    model, told, stored = _load_model(checkpoint, spec, placement, report)
    info = describe_model(spec, path, tokenizer, model, window, placement.bits)
    return Start(tokenizer, model, info, told, stored)


def get_model_info(loaded: LoadedModel) -> ModelInfo:
    """The facts about a loaded model."""
    return loaded.info


def _switched_off(name: ModelName) -> HubUnavailable:
    return HubUnavailable(
        f"{name.ref} is not on this machine, and the hub is switched off (offline).",
        "Go online once to fetch it, or use a model that is here; `--model starter` always works.",
    )


def _fetch(name: ModelName, spec: ModelSpec, *, explicit: bool, on_progress: OnProgress | None) -> Path:
    # Late: the network is loaded only by a run that needs it.
    from llm_local.loaders.before_fetch import check_before_fetch
    from llm_local.store.hub import OFFLINE_AFTER_S
    from llm_local.store.pulling import pull

    patience = None if explicit else OFFLINE_AFTER_S
    return pull(
        name.ref,
        name.revision,
        on_progress=on_progress,
        answer_within_s=patience,
        look=partial(check_before_fetch, spec),
    )


def _fall_back(spec: ModelSpec, error: HubUnavailable) -> ResolvedModel:
    folder = _starter_folder()
    limit = spec.context_length
    if limit is not None:  # chosen for the other model; the starter's own window may be shorter
        limit = min(limit, context_length(read_config(folder).values, None))
    starter = dataclasses.replace(spec, ref=STARTER, revision=None, context_length=limit)
    reason = error.message.rstrip(".")
    notice = (
        f"Using the starter model, because {spec.ref} is not on this machine and cannot be fetched: {reason}. "
        f"For the real one run again when the hub can be reached."
    )
    return ResolvedModel(starter, folder, notice)


def _starter_folder() -> Path:
    """Where the starter model lies: inside the installed package."""
    folder = Path(__file__).parent / STARTER
    if not (folder / CONFIG).is_file():
        raise ModelNotFound(
            "The starter model is not part of this installation.",
            "Install llm-local again, or name another model.",
        )
    return folder


def _load_by_plugin(claim: Claim, spec: ModelSpec, path: Path, began: float) -> LoadedModel:
    """What a plug-in made of the folder; all but tokenizer and weights is read from the folder's files as ever."""
    config = read_config(path)
    window = context_length(config.values, spec.context_length)
    tokenizer, model = load_plugged(claim, spec, path)
    # Late: it imports torch, as the plug-in has done by now.
    from llm_local.loaders.model_facts import describe_model

    info = describe_model(spec, path, tokenizer, model, window)
    ends = end_token_ids(path, config.values, tokenizer, info.vocab_size)
    notice = f"Loaded by the {claim.plugin}."
    return LoadedModel(
        tokenizer, model, info, ends, generation_defaults(path), time.perf_counter() - began, (notice,)
    )


def _load_model(
    checkpoint: Checkpoint, spec: ModelSpec, placement: Placement, report: OnProgress
) -> tuple[Any, tuple[str, ...], Any]:
    """The model itself, lines that people should see, and its packed weights where a file has them."""
    if placement.bits == "none":
        # Late, as everything that loads transformers; and the packed path has parts that this one does not need.
        from llm_local.loaders.causal_lm import load_weights

        return load_weights(checkpoint, placement, trust=spec.trust_remote_code), (), None
    from llm_local.loaders.quantized_lm import load_quantized

    loaded = load_quantized(checkpoint, spec, placement, report)
    return loaded.model, loaded.notices, loaded.stored
