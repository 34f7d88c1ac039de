"""The packed forward: all scheduled tokens of all sequences in one row, through any transformers decoder."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any, cast

import torch

from llm_local.engine.attention import ATTENTION_NAME, Segment, register
from llm_local.engine.kv_cache import KVBudget, SequenceKV, kv_layout
from llm_local.engine.sequence import Chunk
from llm_local.engine.threads import threads_for, use_threads

__all__ = ["PackedRunner"]


class PackedRunner:
    """Runs chunks of many sequences in one forward pass, without padding or masks."""

    # A long prompt never keeps running streams waiting for more than one chunk.
    max_chunk_tokens: int | None = 512

    def __init__(self, model: Any, budget: KVBudget) -> None:
        register()
        model.set_attn_implementation(ATTENTION_NAME)
        self._model = model
        self._device = model.device
        self._num_threads = threads_for(model)
        self.layout = kv_layout(model)
        self.budget = budget

    def new_state(self, expected_tokens: int) -> SequenceKV:
        """Empty keys and values for one sequence."""
        return SequenceKV(self.budget, expected_tokens, self.layout)

    def run(self, chunks: SequenceOf[Chunk]) -> torch.Tensor:
        """One forward pass. Returns logits `[sum of num_logits, vocab]`, float32 on the CPU, in chunk order."""
        use_threads(self._num_threads)
        token_ids: list[int] = []
        positions: list[int] = []
        segments: list[Segment] = []
        kept: list[int] = []
        for chunk in chunks:
            past = chunk.sequence.num_computed
            state = cast(SequenceKV, chunk.sequence.state)
            segments.append(Segment(state, len(token_ids), chunk.length))
            token_ids += chunk.token_ids
            positions += range(past, past + chunk.length)
            kept += range(len(token_ids) - chunk.num_logits, len(token_ids))
        with torch.inference_mode():
            output = self._model(
                input_ids=self._row(token_ids),
                position_ids=self._row(positions),
                use_cache=False,
                logits_to_keep=torch.tensor(kept, dtype=torch.long),  # on the CPU: any device's rows take it
                segments=segments,
            )
        for segment in segments:
            segment.kv.advance(segment.length)
        return output.logits[0].float().cpu()

    def _row(self, values: list[int]) -> torch.Tensor:
        return torch.tensor([values], device=self._device)  # [1, tokens]
