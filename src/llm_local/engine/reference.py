"""transformers' own `generate` on a model that an engine uses too: what the engine is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from llm_local.engine.threads import threads_for, use_threads
from llm_local.kernels.linear import adopt_linears, release_linears

__all__ = ["GenerateReference"]


class _EachStep(BaseStreamer):  # type: ignore[misc]  # transformers has no types
    """Calls back when every sequence of the batch has its next token. The first call of `generate` is the prompt."""

    def __init__(self, on_token: Callable[[], None]) -> None:
        self._on_token = on_token
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """One step's tokens."""
        if self._prompt_seen:
            self._on_token()
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is held back."""


class GenerateReference:
    """Make it before the engine: it keeps the attention the model has now, and goes back to it while it runs.

    Linear layers that an engine gave to the native library are torch's again for as long.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._attention = model.config._attn_implementation
        self._num_threads = threads_for(model)

    def generate(
        self, prompts: Sequence[Sequence[int]], num_new: int, on_token: Callable[[], None]
    ) -> list[list[int]]:
        """The most likely `num_new` tokens after each of `prompts`, all of one length, in one batch.

        `on_token` is called each time all sequences have one token more. No token ends a sequence.
        """
        model, prompt_ids = self._model, torch.tensor(prompts, device=self._model.device)  # [batch, tokens]
        engines, defaults = model.config._attn_implementation, model.generation_config
        use_threads(self._num_threads)
        model.set_attn_implementation(self._attention)
        adopted = release_linears(model)
        # The model's own defaults would add sampling and end tokens, which the engine is not asked for either.
        model.generation_config = GenerationConfig(pad_token_id=0)
        try:
            with torch.inference_mode():
                output = model.generate(
                    prompt_ids,
                    attention_mask=torch.ones_like(prompt_ids),
                    max_new_tokens=num_new,
                    do_sample=False,
                    streamer=_EachStep(on_token),
                )
        finally:
            model.generation_config = defaults
            model.set_attn_implementation(engines)
            if adopted:
                adopt_linears(model)
        found: list[list[int]] = output[:, prompt_ids.shape[1] :].tolist()
        return found
