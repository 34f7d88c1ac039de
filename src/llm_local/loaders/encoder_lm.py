"""A model that turns texts into hidden states, loaded without any head: encoders, and decoders to be pooled."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from llm_local.errors import InvalidRequest
from llm_local.events import Progress
from llm_local.loaders.architectures import choose_encoder
from llm_local.loaders.causal_lm import Checkpoint, load_tokenizer, load_weights, make_config
from llm_local.loaders.configuration import check_layers, context_length, read_config
from llm_local.loaders.devices import place
from llm_local.loaders.model_facts import describe_model
from llm_local.loaders.safetensors import read_weights
from llm_local.logs import adopt_library_logs
from llm_local.specs import ModelInfo, ModelSpec
from llm_local.store.usage import ModelUse

__all__ = ["LoadedEncoder", "load_encoder"]

# Tokenizers without a limit say a number that no text has.
_NO_LIMIT: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """Tokenizer and weights in memory, for hidden states.

    - `info.context_length`: the longest text in tokens, with special tokens.
    - `causal`: each hidden state knows only the tokens before it.
    - `load_s`: seconds it took; `notices`: what the user should know about it, one line each.
    - `use`: while this lives, nobody removes the files.
    """

    tokenizer: Any
    model: Any
    info: ModelInfo
    causal: bool
    load_s: float
    notices: tuple[str, ...] = ()
    use: ModelUse | None = None


def load_encoder(
    spec: ModelSpec,
    folder: Path,
    *,
    declared: bool,
    max_tokens: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> LoadedEncoder:
    """Load what lies in `folder`, in full precision whatever `spec.quantization` says.

    `declared`: the repository says itself how its texts become vectors. `max_tokens`: the longest text its authors
    want; `spec.context_length` goes before it.

    Raises:
        ModelNotFound, ModelCorrupt, UnsafeWeights, UnsupportedTask: the files are not there, damaged, or not for us.
        InsufficientMemory: it does not fit, by the headers of its weights.
        InvalidRequest: a device this machine does not have, or longer texts than the model has places for.
    """
    began = time.perf_counter()
    spec = dataclasses.replace(spec, quantization="none")
    config = read_config(folder)
    weights = read_weights(folder)
    check_layers(config, len(weights.tensors))
    placement = place(spec, weights)
    report = on_progress or (lambda event: None)
    report(Progress("loading", 0, weights.num_bytes, spec.ref))
    adopt_library_logs()
    made = make_config(
        config,
        folder,
        trust_remote_code=False,
        judge=lambda found: choose_encoder(found, declared=declared),
    )
    cls, causal = choose_encoder(config, declared=declared)
    tokenizer = load_tokenizer(folder, made, trust_remote_code=False)
    checkpoint = Checkpoint(folder, config, made, weights, cls, _without_pooler(cls))
    model = load_weights(checkpoint, placement, trust=False)
    report(Progress("loading", weights.num_bytes, weights.num_bytes, spec.ref))
    places = min(context_length(config.values, None), _places(model))
    window = _window(places, tokenizer, max_tokens, spec.context_length)
    notices = [placement.notice]
    if config.has_own_code:
        notices.append(
            f"{spec.ref} comes with code of its own, which is never run; its embeddings are made by the "
            f"{cls.__name__} of transformers, and its authors' may differ."
        )
    info = describe_model(spec, folder, tokenizer, model, window)
    told = tuple(filter(None, notices))
    return LoadedEncoder(tokenizer, model, info, causal, time.perf_counter() - began, told)


def _without_pooler(cls: Any) -> dict[str, Any]:
    """A pooler is a layer for another task: many checkpoints do not have its weights, and nobody here reads it."""
    known = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    return {"add_pooling_layer": False} if known else {}


def _places(model: nn.Module) -> int:
    """How many tokens there are position embeddings for. RoBERTa's count from behind the padding token's id."""
    found = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    return min(found, default=_NO_LIMIT)


def _window(places: int, tokenizer: Any, max_tokens: int | None, asked: int | None) -> int:
    if asked is None:
        limit = tokenizer.model_max_length
        known = [
            places,
            max_tokens or _NO_LIMIT,
            limit if isinstance(limit, int) and limit > 0 else _NO_LIMIT,
        ]
        return min(known)
    if asked > places:
        raise InvalidRequest(
            f"Texts of {asked} tokens are asked for, but the model has places for {places}.",
            param="context_length",
        )
    return asked
