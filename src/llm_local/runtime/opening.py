"""From a name to a model that answers: the one way for programs that run alone and for the pool of a service."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_local.config import Config
from llm_local.events import Progress
from llm_local.specs import ModelInfo

if TYPE_CHECKING:
    from llm_local.engine.driver import Driver
    from llm_local.engine.protocol import Engine
    from llm_local.generator import TextGenerator
    from llm_local.model_loader import ResolvedModel

__all__ = ["FoundModel", "OpenModel", "find_models", "open_found", "open_model"]

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model ready to answer. `notices` are lines people should see: another model than the default, and such."""

    generator: TextGenerator
    info: ModelInfo
    generation_defaults: Mapping[str, Any]
    load_s: float
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundModel:
    """The files of a model, and of the one that guesses ahead for it, on this disk."""

    model: ResolvedModel
    draft: ResolvedModel | None = None


def open_model(config: Config, on_progress: OnProgress) -> OpenModel:
    """Find the model of `config`, download it where needed and allowed, and load it.

    Raises:
        LocalLLMError: it cannot be found, reached, read or held in memory.
    """
    return open_found(config, find_models(config, on_progress), on_progress)


def find_models(config: Config, on_progress: OnProgress) -> FoundModel:
    """Find the model of `config` and the one that guesses ahead for it; download them where needed and allowed.

    Raises:
        LocalLLMError: one cannot be found or reached.
    """
    # Late: what can be wrong without a model is found without it.
    from llm_local.model_loader import resolve_model

    resolved = resolve_model(
        config.model_spec(),
        explicit=config.is_explicit("model_id"),
        offline=config.offline,
        on_progress=on_progress,
    )
    spec = config.draft_spec()
    if spec is None:
        return FoundModel(resolved)
    return FoundModel(
        resolved, resolve_model(spec, explicit=True, offline=config.offline, on_progress=on_progress)
    )


def open_found(
    config: Config,
    found: FoundModel,
    on_progress: OnProgress,
    *,
    driver: Callable[[Engine], Driver] | None = None,
    reserved_bytes: int = 0,
) -> OpenModel:
    """Load what was found.

    `driver` decides which thread the engine runs in; by default whoever reads a stream drives it. Of the free memory
    `reserved_bytes` belong to others.

    Raises:
        LocalLLMError: it cannot be read or held in memory.
    """
    # Late, as above.
    from llm_local.model_loader import load_tokenizer_and_model

    draft = None
    if found.draft is not None:
        draft = load_tokenizer_and_model(
            found.draft.spec, path=found.draft.path, on_progress=on_progress, quick=True
        )
    resolved = found.model
    loaded = load_tokenizer_and_model(resolved.spec, path=resolved.path, on_progress=on_progress, quick=True)
    # Late: it imports torch, and most failures are known by now.
    from llm_local.engine.driver import InlineDriver
    from llm_local.generator import TextGenerator

    options = dataclasses.replace(config.engine_options(), reserved_bytes=reserved_bytes)
    return OpenModel(
        TextGenerator(loaded, engine_options=options, draft=draft, driver=driver or InlineDriver),
        loaded.info,
        loaded.generation_defaults,
        loaded.load_s,
        (resolved.notice, *loaded.notices),
    )
