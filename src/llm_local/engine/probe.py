"""The proof that a runner computes what the model alone computes, on two short prompts."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch

from llm_local.engine.kv_cache import SequenceKV, kv_layout
from llm_local.engine.protocol import TokenRequest
from llm_local.engine.sequence import Chunk, Runner, Sequence
from llm_local.kernels.linear import is_quantized
from llm_local.options import GenerationOptions
from llm_local.sampling.sampler import Sampler

__all__ = ["Probe", "vocab_size"]

logger = logging.getLogger(__name__)

# Largest difference of logits, relative to their spread, that different summation orders explain. A quantized model
# rounds its activations too, and a sum that falls on the other side of a step moves what comes after it.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
QUANTIZED_TOLERANCE = 0.5


class Probe:
    """What the model's own forward pass says, to be held against runners. Made before a runner changes the model."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._prompts = _probe_prompts(vocab_size(model))
        self._expected = [_plain_logits(model, prompt) for prompt in self._prompts]

    def fault(self, runner: Runner) -> str:
        """What is wrong with the runner's logits, or nothing.

        A probe is shorter than a window, so the windows themselves must have come down to the attention function: some
        models keep theirs in the mask, which the packed forward does without.
        """
        try:
            actual, windows = _packed_logits(runner, self._prompts)
        except Exception as error:  # whatever it is, it means that this architecture does not fit
            logger.debug("packed probe failed", exc_info=error)
            return f"its packed forward fails with {type(error).__name__}"
        layout = kv_layout(self._model)
        if windows != layout.windows:
            return "its sliding windows do not reach the attention function"
        tolerance = TOLERANCE.get(self._model.dtype, max(TOLERANCE.values()))
        if is_quantized(self._model):
            tolerance = QUANTIZED_TOLERANCE
        for one, other in zip(self._expected, actual, strict=True):
            if not float((one - other).abs().max()) <= tolerance * float(one.std()):
                return "its packed forward gives other logits than the model alone"
        return ""


def vocab_size(model: Any) -> int:
    """Logits of a token."""
    head = model.get_output_embeddings()
    return int(model.config.get_text_config().vocab_size if head is None else head.weight.shape[0])


def _probe_prompts(size: int) -> list[list[int]]:
    """Two short prompts with different ids and lengths."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(size, (length,), generator=generator).tolist() for length in (9, 5)]


def _plain_logits(model: Any, prompt: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([prompt], device=model.device), use_cache=False)
    return output.logits[0, -1].float().cpu()


def _packed_logits(
    runner: Runner, prompts: list[list[int]]
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
        beside = runner.run([Chunk(first, 4), Chunk(second, second.num_pending)])[0].clone()
        first.num_computed = 4
        logits = [runner.run([Chunk(first, first.num_pending)])[0].clone(), beside]
        windows = cast(SequenceKV, first.state).windows
        return logits, tuple(windows[index] for index in sorted(windows))
    finally:
        first.state.free()
        second.state.free()
