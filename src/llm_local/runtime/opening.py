"""From a name to a model that answers: the one way for programs that run alone and for the pool of a service."""

from __future__ import annotations

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

__all__ = ["OpenModel", "open_model"]


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model ready to answer. `notices` are lines people should see: another model than the default, and such."""

    generator: TextGenerator
    info: ModelInfo
    generation_defaults: Mapping[str, Any]
    load_s: float
    notices: tuple[str, ...] = ()


def open_model(
    config: Config,
    on_progress: Callable[[Progress], None],
    *,
    driver: Callable[[Engine], Driver] | None = None,
) -> OpenModel:
    """Find the model of `config`, download it where needed and allowed, and load it.

    `driver` decides which thread the engine runs in; by default whoever reads a stream drives it.

    Raises:
        LocalLLMError: it cannot be found, reached, read or held in memory.
    """
    # Late: what can be wrong without a model is found without it.
    from llm_local.model_loader import load_tokenizer_and_model, resolve_model

    resolved = resolve_model(
        config.model_spec(),
        explicit=config.is_explicit("model_id"),
        offline=config.offline,
        on_progress=on_progress,
    )
    draft_spec, draft = config.draft_spec(), None
    if draft_spec is not None:
        found = resolve_model(draft_spec, explicit=True, offline=config.offline, on_progress=on_progress)
        draft = load_tokenizer_and_model(found.spec, path=found.path, on_progress=on_progress, quick=True)
    loaded = load_tokenizer_and_model(resolved.spec, path=resolved.path, on_progress=on_progress, quick=True)
    # Late: it imports torch, and most failures are known by now.
    from llm_local.engine.driver import InlineDriver
    from llm_local.generator import TextGenerator

    return OpenModel(
        TextGenerator(
            loaded, engine_options=config.engine_options(), draft=draft, driver=driver or InlineDriver
        ),
        loaded.info,
        loaded.generation_defaults,
        loaded.load_s,
        (resolved.notice, *loaded.notices),
    )
