"""From a loaded model to an engine, and the proof that the packed forward is right for it."""

from __future__ import annotations

from typing import Any

import torch

from llm_local.engine.engine import BatchEngine
from llm_local.engine.kv_cache import KVBudget
from llm_local.engine.protocol import TokenRequest
from llm_local.engine.runner import PackedRunner
from llm_local.engine.sequence import Chunk, Sequence
from llm_local.errors import UnsupportedTask
from llm_local.options import GenerationOptions
from llm_local.sampling.sampler import Sampler

__all__ = ["PROVEN", "make_engine", "make_runner"]

# Architectures whose packed forward the law tests hold against `generate`. Any other one is probed at load.
PROVEN = frozenset({"gemma2", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3"})

# Largest difference of logits, relative to their spread, that different summation orders explain.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


def make_engine(model: Any, *, context_length: int, kv_limit_bytes: int | None = None) -> BatchEngine:
    """An engine over a transformers decoder, `context_length` in tokens, K/V memory in bytes (None: unlimited).

    Raises:
        UnsupportedTask: the architecture cannot run in the packed forward.
    """
    runner = make_runner(model, KVBudget(kv_limit_bytes))
    return BatchEngine(runner, context_length=context_length, vocab_size=_vocab_size(model))


def make_runner(model: Any, budget: KVBudget) -> PackedRunner:
    """The packed runner of a model; proves it first where no test has.

    Raises:
        UnsupportedTask: the architecture does not use transformers' attention interface, or gives other
            logits in the packed forward than alone.
    """
    model_type = model.config.model_type
    if model_type in PROVEN:
        return PackedRunner(model, budget)
    if not getattr(model, "_supports_attention_backend", False):
        raise _unsupported(model_type, "it does not use the common attention interface")
    prompts = _probe_prompts(_vocab_size(model))
    expected = [_plain_logits(model, prompt) for prompt in prompts]
    original = model.config._attn_implementation
    runner = PackedRunner(model, budget)
    try:
        actual = _packed_logits(runner, prompts)
    except Exception as error:  # any failure means the same: this architecture does not fit
        model.set_attn_implementation(original)
        raise _unsupported(model_type, f"its packed forward fails ({error})") from error
    tolerance = TOLERANCE.get(model.dtype, 0.1)
    for one, other in zip(expected, actual, strict=True):
        if float((one - other).abs().max()) > tolerance * float(one.std()):
            model.set_attn_implementation(original)
            raise _unsupported(model_type, "its packed forward gives other logits than the model alone")
    return runner


def _unsupported(model_type: str, reason: str) -> UnsupportedTask:
    return UnsupportedTask(
        f"Models of type {model_type!r} cannot run in the packed engine: {reason}.",
        f"Use a model of one of the types {', '.join(sorted(PROVEN))}.",
    )


def _vocab_size(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _probe_prompts(vocab_size: int) -> list[list[int]]:
    """Two short prompts with different ids and lengths."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in (9, 5)]


def _plain_logits(model: Any, prompt: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([prompt], device=model.device), use_cache=False)
    return output.logits[0, -1].float().cpu()


def _packed_logits(runner: PackedRunner, prompts: list[list[int]]) -> list[torch.Tensor]:
    """Logits after each prompt; the first prompt runs in two chunks, the second beside the first chunk."""
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
        return [runner.run([Chunk(first, first.num_pending)])[0], beside[0]]
    finally:
        first.state.free()
        second.state.free()
