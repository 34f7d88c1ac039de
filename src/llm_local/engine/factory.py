"""From a loaded model to an engine: which runner is right for it, and fastest."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as SequenceOf
from typing import Any

import torch

from llm_local.engine.attention import ATTENTION_NAME
from llm_local.engine.description import NotDescribable, describe
from llm_local.engine.engine import BatchEngine
from llm_local.engine.image import from_image, to_image
from llm_local.engine.kv_cache import KVBudget, kv_layout
from llm_local.engine.native_attention import STORED
from llm_local.engine.native_runner import NativeRunner
from llm_local.engine.prefix_cache import PrefixCache
from llm_local.engine.probe import Probe, vocab_size
from llm_local.engine.runner import PackedRunner
from llm_local.engine.sequence import Runner
from llm_local.engine.speculative import Drafter, ModelDrafter
from llm_local.engine.universal import UniversalRunner
from llm_local.errors import InvalidRequest, UnsupportedTask
from llm_local.kernels.library import Native, native
from llm_local.kernels.linear import adopt_linears, release_linears, required_native
from llm_local.loaders.decoder_image import DecoderImage, Span
from llm_local.specs import Kernels

__all__ = ["PROVEN", "image_of", "make_draft", "make_engine", "make_runner"]

logger = logging.getLogger(__name__)

# Layers that our attention function knows how to serve.
ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})

# Rotary embeddings that change for all tokens when one more comes: no two sequences may share them.
LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})

# Architectures whose packed forward the law tests hold against `generate`. Any other one is probed at load.
PROVEN = frozenset(
    {
        "cohere",
        "deepseek_v3",
        "ernie4_5",
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "glm4",
        "gpt2",
        "gpt_neox",
        "gpt_oss",
        "granite",
        "granitemoe",
        "helium",
        "llama",
        "ministral",
        "mistral",
        "mixtral",
        "olmo2",
        "olmo3",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "starcoder2",
    }
)


def make_engine(
    model: Any,
    *,
    context_length: int,
    kv_limit_bytes: int | None = None,
    prefix_cache_bytes: int = 0,
    drafter: Drafter | None = None,
    kernels: Kernels = "auto",
) -> BatchEngine:
    """An engine over a transformers causal model, or over the image of one.

    `context_length` in tokens; `kv_limit_bytes` for all keys and values (None: no limit), of which the prefix cache
    may keep `prefix_cache_bytes` (0: none); `drafter` guesses tokens ahead. The universal path cannot go back to an
    earlier token, which both need; there they are off, and the log says so. `kernels` as in `EngineOptions`.
    """
    runner = make_runner(model, KVBudget(kv_limit_bytes), kernels)
    packed = not isinstance(runner, UniversalRunner)
    if not packed and (prefix_cache_bytes or drafter):
        logger.info("no prefix cache and no speculative decoding on the universal path")
    return BatchEngine(
        runner,
        context_length=context_length,
        vocab_size=runner.model.vocab_size if isinstance(runner, NativeRunner) else vocab_size(model),
        prefix_cache=PrefixCache(prefix_cache_bytes) if packed and prefix_cache_bytes else None,
        drafter=drafter if packed else None,
    )


def make_draft(
    model: Any, *, context_length: int, kv_limit_bytes: int | None, kernels: Kernels = "auto"
) -> ModelDrafter:
    """A drafter over a small transformers model, with its own window in tokens and K/V memory in bytes.

    Raises:
        UnsupportedTask: the small model cannot go back to an earlier token.
    """
    runner = make_runner(model, KVBudget(kv_limit_bytes), kernels)
    if isinstance(runner, UniversalRunner):
        raise UnsupportedTask(
            f"Models of type {model.config.model_type!r} cannot guess ahead for another one.",
            "Use a draft model of the packed kind (docs/architectures.md).",
        )
    return ModelDrafter(runner, context_length)


def image_of(
    engine: BatchEngine | ModelDrafter, spans: SequenceOf[Span]
) -> tuple[dict[str, Any], torch.Tensor] | None:
    """What runs the native step, as data for a later start; None for any other. See `image.to_image`."""
    runner = engine._runner
    return to_image(runner.model, spans) if isinstance(runner, NativeRunner) else None


def make_runner(model: Any, budget: KVBudget, kernels: Kernels = "auto") -> Runner:
    """The fastest runner that is right for the model; the choice is logged, and `description` says what it is.

    In this order: the native step, the packed forward over the native library, the packed forward of torch, and the
    universal path. What the law tests do not speak for is probed. An image is of a model that has been through this.

    Raises:
        InvalidRequest: other kernels than the native step for an image of it.
    """
    if isinstance(model, DecoderImage):
        if kernels != "auto":
            raise InvalidRequest(
                f"The kernels of the engine are {kernels!r}, but the model was loaded for the native step.",
                "Load it with the same kernels.",
                param="kernels",
            )
        return NativeRunner(from_image(model), budget, required_native())
    _undo(model)
    name, own_attention = model.config.model_type, model.config._attn_implementation
    reason = _why_not_packed(model)
    if reason:
        logger.info("%s models run one sequence at a time: %s", name, reason)
        return UniversalRunner(model, budget)
    probe = functools.cache(lambda: Probe(model))
    for proven, make in _candidates(model, budget, kernels):
        try:
            expected = None if proven else probe()
            runner = make()
            fault = "" if expected is None else expected.fault(runner)
        except NotDescribable as error:
            fault = f"the native step does not run it: {error}"
        if not fault:
            logger.info("%s models run as: %s", name, runner.description)
            return runner
        logger.info("%s: %s", name, fault)
    release_linears(model)
    model.set_attn_implementation(own_attention)
    return UniversalRunner(model, budget)


def _candidates(
    model: Any, budget: KVBudget, kernels: Kernels
) -> Iterator[tuple[bool, Callable[[], PackedRunner | NativeRunner]]]:
    """Runners in order of preference, each with whether it is known to be right."""
    own_code = type(model).__module__.startswith("transformers.")
    proven = own_code and model.config.get_text_config().model_type in PROVEN
    # transformers' code may keep a window in the mask, which the packed forward does without
    windowed = any(window is not None for window in kv_layout(model).windows)
    library = native() if kernels != "off" and model.device.type == "cpu" else None
    if library is not None:
        if kernels == "auto":
            yield proven, lambda: NativeRunner(describe(model, kv_layout(model), library), budget, library)
        if model.dtype in STORED:
            yield proven and not windowed, lambda: _over_library(model, budget, library)
    yield proven and not windowed, lambda: _over_torch(model, budget)


def _over_library(model: Any, budget: KVBudget, library: Native) -> PackedRunner:
    adopt_linears(model)
    return PackedRunner(model, budget, library)


def _over_torch(model: Any, budget: KVBudget) -> PackedRunner:
    release_linears(model)
    return PackedRunner(model, budget)


def _undo(model: Any) -> None:
    """Give the model its own attention and linear layers back, where an engine before this one changed them."""
    if model.config._attn_implementation == ATTENTION_NAME:
        model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    release_linears(model)


def _why_not_packed(model: Any) -> str:
    """Why no packed forward can be right for a model; empty when one may be."""
    config = model.config.get_text_config()
    rope = _rope_types(getattr(config, "rope_parameters", None) or {}) & LENGTH_DEPENDENT_ROPE
    if rope:
        return f"its {', '.join(sorted(rope))} rotary embedding depends on the length of the whole input"
    foreign = set(getattr(config, "layer_types", None) or ()) - ATTENTION_LAYERS
    if foreign:
        return f"it has layers of type {', '.join(sorted(foreign))}"
    if not getattr(model, "_supports_attention_backend", False):
        return "it does not use the common attention interface"
    return ""


def _rope_types(parameters: Mapping[str, Any]) -> set[str]:
    """The kinds of rotary embedding, also where each kind of layer has its own."""
    nested = [_rope_types(value) for value in parameters.values() if isinstance(value, Mapping)]
    return set().union({str(parameters.get("rope_type", "default"))}, *nested)
