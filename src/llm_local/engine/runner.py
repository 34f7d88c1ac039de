"""The packed forward: all scheduled tokens of all sequences in one row, through any transformers decoder."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any

import torch

from llm_local.engine.abandoned import leaving_between_layers
from llm_local.engine.attention import ATTENTION_NAME, Attend, TorchAttention, register
from llm_local.engine.kv_cache import KVBudget, SequenceKV, kv_layout
from llm_local.engine.native_attention import NativeAttention
from llm_local.engine.packed_row import PackedRow
from llm_local.engine.sequence import Chunk
from llm_local.engine.threads import threads_for, use_threads
from llm_local.kernels.library import Native

__all__ = ["PackedRunner"]


class PackedRunner:
    """Runs chunks of many sequences in one forward pass, without padding or masks.

    The model computes, with the linear layers it has; with a `library`, which then has those, its attention is the
    library's too where that takes keys and values of the model's layout.
    """

    # A long prompt never keeps running streams waiting for more than one chunk.
    max_chunk_tokens: int | None = 512

    def __init__(self, model: Any, budget: KVBudget, library: Native | None = None) -> None:
        register()
        model.set_attn_implementation(ATTENTION_NAME)
        self._model = model
        self._device = model.device
        self._num_threads = threads_for(model)
        self.layout = kv_layout(model)
        self.budget = budget
        self._library = library
        self._attends = library is not None and NativeAttention.fits(self.layout)

    @property
    def description(self) -> str:
        """What computes, in a few words."""
        if self._library is None:
            packed = any(hasattr(module, "as_struct") for module in self._model.modules())
            return "native linears, all else by torch" if packed else "stock torch"
        return f"native linears{' and attention' if self._attends else ''} ({self._library.variant})"

    def new_state(self, expected_tokens: int) -> SequenceKV:
        """Empty keys and values for one sequence."""
        return SequenceKV(self.budget, expected_tokens, self.layout)

    def run(self, chunks: SequenceOf[Chunk]) -> torch.Tensor:
        """One forward pass. Returns logits `[sum of num_logits, vocab]`, float32 on the CPU, in chunk order."""
        use_threads(self._num_threads)
        row = PackedRow.of(chunks)
        with torch.inference_mode(), leaving_between_layers(self._model, chunks):
            output = self._model(
                input_ids=self._tensor(row.token_ids),
                position_ids=self._tensor(list(row.positions())),
                use_cache=False,
                # on the CPU: any device's rows take it
                logits_to_keep=torch.tensor(row.kept, dtype=torch.long),
                attend=self._attention(row),
            )
        row.advance()
        return output.logits[0].float().cpu()

    def _attention(self, row: PackedRow) -> Attend:
        if self._library is None or not self._attends:
            return TorchAttention(row.segments)
        row.make_room()
        return NativeAttention(self._library, row, self.layout)

    def _tensor(self, values: list[int]) -> torch.Tensor:
        return torch.tensor([values], device=self._device)  # [1, tokens]
