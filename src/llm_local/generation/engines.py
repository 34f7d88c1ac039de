"""The engine of a loaded model, with the memory for keys and values shared out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_local.engine.protocol import Engine
from llm_local.errors import InvalidRequest
from llm_local.model_loader import LoadedModel
from llm_local.specs import EngineOptions

if TYPE_CHECKING:
    from llm_local.engine.speculative import Drafter

__all__ = ["engine_for"]


def engine_for(loaded: LoadedModel, options: EngineOptions, draft: LoadedModel | None) -> Engine:
    """An engine for `loaded`. `draft` guesses ahead for it.

    Raises:
        InvalidRequest: the draft model has another vocabulary.
    """
    # Late: these import torch, and whoever brings an engine of its own does not need it.
    from llm_local.engine.factory import image_of, make_draft, make_engine
    from llm_local.engine.numerical_fault import NumericalFault
    from llm_local.engine.speculative import NgramDrafter
    from llm_local.loaders.devices import available_bytes

    kv_limit_bytes = options.kv_cache_bytes
    if kv_limit_bytes is None:
        kv_limit_bytes = max(0, available_bytes(loaded.info.device) - options.reserved_bytes) // 2
    drafter: Drafter | None = NgramDrafter() if options.speculation == "ngram" else None
    if draft is not None:
        if draft.tokenizer.get_vocab() != loaded.tokenizer.get_vocab():
            raise InvalidRequest(
                f"The draft model {draft.info.ref} has another vocabulary than {loaded.info.ref}.",
                "A draft model must be of the same family.",
                param="draft_model",
            )
        # the small model's keys and values are small too
        draft_bytes = kv_limit_bytes // 8
        kv_limit_bytes -= draft_bytes
        drafter = small = make_draft(
            draft.model,
            context_length=draft.info.context_length,
            kv_limit_bytes=draft_bytes,
            kernels=options.kernels,
        )
        if draft.keep is not None:
            draft.keep(lambda spans: image_of(small, spans))
    engine = make_engine(
        loaded.model,
        context_length=loaded.info.context_length,
        kv_limit_bytes=kv_limit_bytes,
        prefix_cache_bytes=kv_limit_bytes // 2 if options.prefix_cache else 0,
        drafter=drafter,
        kernels=options.kernels,
    )
    engine.explain = NumericalFault(loaded.model, loaded.info).explain
    if loaded.keep is not None:
        loaded.keep(lambda spans: image_of(engine, spans))
    return engine
