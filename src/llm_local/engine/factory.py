"""From a loaded model to an engine, and the proof that the packed forward is right for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import torch

from llm_local.engine.attention import ATTENTION_NAME
from llm_local.engine.engine import BatchEngine
from llm_local.engine.kv_cache import KVBudget, SequenceKV, kv_layout
from llm_local.engine.prefix_cache import PrefixCache
from llm_local.engine.protocol import TokenRequest
from llm_local.engine.runner import PackedRunner
from llm_local.engine.sequence import Chunk, Runner, Sequence
from llm_local.engine.speculative import Drafter, ModelDrafter
from llm_local.engine.universal import UniversalRunner
from llm_local.errors import UnsupportedTask
from llm_local.options import GenerationOptions
from llm_local.sampling.sampler import Sampler

__all__ = ["PROVEN", "make_draft", "make_engine", "make_runner"]

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
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "gpt2",
        "gpt_neox",
        "gpt_oss",
        "granite",
        "granitemoe",
        "llama",
        "mistral",
        "mixtral",
        "olmo2",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "smollm3",
        "starcoder2",
    }
)

# Largest difference of logits, relative to their spread, that different summation orders explain.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


def make_engine(
    model: Any,
    *,
    context_length: int,
    kv_limit_bytes: int | None = None,
    prefix_cache_bytes: int = 0,
    drafter: Drafter | None = None,
) -> BatchEngine:
    """An engine over a transformers causal model.

    `context_length` in tokens; `kv_limit_bytes` for all keys and values (None: no limit), of which the prefix cache
    may keep `prefix_cache_bytes` (0: none); `drafter` guesses tokens ahead. Only the packed path can go back to an
    earlier token, which both need; on the universal path they are off, and the log says so.
    """
    runner = make_runner(model, KVBudget(kv_limit_bytes))
    packed = isinstance(runner, PackedRunner)
    if not packed and (prefix_cache_bytes or drafter):
        logger.info("no prefix cache and no speculative decoding on the universal path")
    return BatchEngine(
        runner,
        context_length=context_length,
        vocab_size=_vocab_size(model),
        prefix_cache=PrefixCache(prefix_cache_bytes) if packed and prefix_cache_bytes else None,
        drafter=drafter if packed else None,
    )


def make_draft(model: Any, *, context_length: int, kv_limit_bytes: int | None) -> ModelDrafter:
    """A drafter over a small transformers model, with its own window in tokens and K/V memory in bytes.

    Raises:
        UnsupportedTask: the small model cannot go back to an earlier token.
    """
    runner = make_runner(model, KVBudget(kv_limit_bytes))
    if not isinstance(runner, PackedRunner):
        raise UnsupportedTask(
            f"Models of type {model.config.model_type!r} cannot guess ahead for another one.",
            "Use a draft model of the packed kind (docs/architectures.md).",
        )
    return ModelDrafter(runner, context_length)


def make_runner(model: Any, budget: KVBudget) -> Runner:
    """The packed runner where it is right for the model, else the universal one; the choice is logged."""
    if model.config._attn_implementation == ATTENTION_NAME:  # of an engine before this one
        model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")
    reason = _why_not_packed(model)
    if reason:
        logger.info("%s models run one sequence at a time: %s", model.config.model_type, reason)
        return UniversalRunner(model, budget)
    return PackedRunner(model, budget)


def _why_not_packed(model: Any) -> str:
    """Why the packed forward is not right for a model; empty when it is. Unproven architectures are probed."""
    config = model.config.get_text_config()
    rope = _rope_types(getattr(config, "rope_parameters", None) or {}) & LENGTH_DEPENDENT_ROPE
    if rope:
        return f"its {', '.join(sorted(rope))} rotary embedding depends on the length of the whole input"
    foreign = set(getattr(config, "layer_types", None) or ()) - ATTENTION_LAYERS
    if foreign:
        return f"it has layers of type {', '.join(sorted(foreign))}"
    if not getattr(model, "_supports_attention_backend", False):
        return "it does not use the common attention interface"
    windowed = any(window is not None for window in kv_layout(model).windows)
    return "" if config.model_type in PROVEN and not windowed else _probe(model)


def _rope_types(parameters: Mapping[str, Any]) -> set[str]:
    """The kinds of rotary embedding, also where each kind of layer has its own."""
    nested = [_rope_types(value) for value in parameters.values() if isinstance(value, Mapping)]
    return set().union({str(parameters.get("rope_type", "default"))}, *nested)


def _probe(model: Any) -> str:
    """Compare logits of the packed forward with the model's own; what is wrong with them, or nothing.

    A probe is shorter than a window, so the windows themselves must have come down to the attention function: some
    models keep theirs in the mask, which the packed forward does without.
    """
    implementation = model.config._attn_implementation
    try:
        prompts = _probe_prompts(_vocab_size(model))
        expected = [_plain_logits(model, prompt) for prompt in prompts]
        actual, windows = _packed_logits(PackedRunner(model, KVBudget(None)), prompts)
    except Exception as error:  # whatever it is, it means that this architecture does not fit
        logger.debug("packed probe failed", exc_info=error)
        return f"its packed forward fails with {type(error).__name__}"
    finally:
        model.set_attn_implementation(implementation)
    if windows != kv_layout(model).windows:
        return "its sliding windows do not reach the attention function"
    tolerance = TOLERANCE.get(model.dtype, max(TOLERANCE.values()))
    for one, other in zip(expected, actual, strict=True):
        if float((one - other).abs().max()) > tolerance * float(one.std()):
            return "its packed forward gives other logits than the model alone"
    return ""


def _vocab_size(model: Any) -> int:
    head = model.get_output_embeddings()
    return int(model.config.get_text_config().vocab_size if head is None else head.weight.shape[0])


def _probe_prompts(vocab_size: int) -> list[list[int]]:
    """Two short prompts with different ids and lengths."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in (9, 5)]


def _plain_logits(model: Any, prompt: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([prompt], device=model.device), use_cache=False)
    return output.logits[0, -1].float().cpu()


def _packed_logits(
    runner: PackedRunner, prompts: list[list[int]]
) -> tuple[list[torch.Tensor], tuple[int | None, ...]]:
    """Logits after each prompt, and each layer's window as the attention function was told.

    The first prompt runs in two chunks, the second beside the first chunk.
    """
    options = GenerationOptions(temperature=0)
    first, second = (
        Sequence(
            TokenRequest(str(index), tuple(prompt), options),
            runner.new_state(len(prompt)),
            Sampler(options, prompt, vocab_size=1),
            max_tokens=len(prompt) + 1,
        )
        for index, prompt in enumerate(prompts)
    )
    try:
        beside = runner.run([Chunk(first, 4), Chunk(second, second.num_pending)])
        first.num_computed = 4
        logits = [runner.run([Chunk(first, first.num_pending)])[0], beside[0]]
        windows = cast(SequenceKV, first.state).windows
        return logits, tuple(windows[index] for index in sorted(windows))
    finally:
        first.state.free()
        second.state.free()
