"""A model to be measured: where it comes from, and how engines over it are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llm_local.errors import ContextLengthExceeded
from llm_local.events import Progress
from llm_local.loaders.configuration import read_config
from llm_local.loaders.published_shapes import PUBLISHED_SHAPES
from llm_local.model_loader import load_tokenizer_and_model, resolve_model
from llm_local.specs import EngineOptions, ModelInfo, ModelSpec
from llm_local.store.names import STARTER
from llm_local.store.usage import ModelUse

if TYPE_CHECKING:
    from llm_local.engine.engine import BatchEngine

__all__ = ["SHAPES", "Subject", "open_shape", "open_weights"]

SHAPES: Final = (*PUBLISHED_SHAPES, STARTER)
"""What has random weights to offer."""


@dataclass(frozen=True, slots=True)
class Subject:
    """`model` is transformers', `shape` its `config.json`. `published` names the shape where weights are random.

    While `use` lives, nobody removes the files.
    """

    model: Any
    info: ModelInfo
    options: EngineOptions
    shape: Mapping[str, Any]
    published: str = ""
    use: ModelUse | None = None

    def make_engine(self, *, prefix_cache: bool) -> BatchEngine:
        """A fresh engine with the memory the product would give it."""
        # Late: these import torch, and the flags are judged without it.
        from llm_local.engine.factory import make_engine
        from llm_local.loaders.devices import available_bytes

        limit = self.options.kv_cache_bytes or available_bytes(self.info.device) // 2
        return make_engine(
            self.model,
            context_length=self.info.context_length,
            kv_limit_bytes=limit,
            prefix_cache_bytes=limit // 2 if prefix_cache else 0,
            kernels=self.options.kernels,
        )

    def num_threads(self) -> int:
        """How many CPU threads a forward pass of it uses."""
        # Late: it imports torch.
        from llm_local.engine.threads import threads_for

        return threads_for(self.model)

    def kv_bytes_per_token(self) -> int:
        """What one token's keys and values take in the engine's memory."""
        # Late: it imports torch.
        from llm_local.engine.kv_cache import kv_layout

        return kv_layout(self.model).bytes_per_token

    def read_share(self) -> float | None:
        """The share of its weights that one step reads: all but the embedding, where that is not the head as well.

        None where that depends on the token, as with experts.
        """
        if any("expert" in key for key in self.shape):
            return None
        if self.shape.get("tie_word_embeddings", False):
            return 1.0
        looked_up = self.shape["vocab_size"] * self.shape["hidden_size"]
        return 1.0 - looked_up / self.info.num_parameters

    def require_room(self, prompt_tokens: int, new_tokens: int) -> None:
        """Check that a sequence fits the window, before anything is measured.

        Raises:
            ContextLengthExceeded: it does not.
        """
        if prompt_tokens + new_tokens > self.info.context_length:
            raise ContextLengthExceeded(
                prompt_tokens=prompt_tokens, reserve=new_tokens, context_length=self.info.context_length
            )


def open_shape(name: str, spec: ModelSpec, options: EngineOptions) -> Subject:
    """A model of one of SHAPES with random weights; `spec` says its number format, device and quantization.

    "auto" is no quantization here: what is measured is what was asked for.

    Raises:
        InvalidRequest, InsufficientMemory: see `loaders.random_weights.random_model`.
    """
    # Late: it imports torch, and the flags are judged by now.
    from llm_local.loaders.random_weights import random_model

    if name == STARTER:
        shape = read_config(resolve_model(ModelSpec(STARTER), explicit=True).path).values
    else:
        shape = PUBLISHED_SHAPES[name]
    model, info = random_model(
        f"{name} (random weights)",
        shape,
        dtype=spec.dtype,
        device=spec.device,
        bits="none" if spec.quantization == "auto" else spec.quantization,
    )
    return Subject(model, info, options, shape, name)


def open_weights(
    spec: ModelSpec,
    options: EngineOptions,
    *,
    explicit: bool,
    offline: bool,
    on_progress: Callable[[Progress], None],
) -> tuple[Subject, tuple[str, ...]]:
    """A real model, found and loaded as for an answer, and what people should know about that.

    Raises:
        LocalLLMError: it cannot be found, reached, read or held in memory.
    """
    resolved = resolve_model(spec, explicit=explicit, offline=offline, on_progress=on_progress)
    loaded = load_tokenizer_and_model(resolved.spec, path=resolved.path, on_progress=on_progress)
    notices = tuple(filter(None, (resolved.notice, *loaded.notices)))
    shape = read_config(resolved.path).values
    return Subject(loaded.model, loaded.info, options, shape, use=loaded.use), notices
