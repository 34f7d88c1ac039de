"""The native step: all scheduled tokens of all sequences through a Llama-like decoder in one call of the library."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as SequenceOf

import torch

from llm_local.engine.abandoned import MANY_TOKENS, leave_if_abandoned
from llm_local.engine.kv_cache import KVBudget, SequenceKV
from llm_local.engine.native_attention import segment_structs
from llm_local.engine.native_model import NativeModel
from llm_local.engine.packed_row import PackedRow
from llm_local.engine.sequence import Chunk
from llm_local.engine.threads import threads_for_bytes, use_threads
from llm_local.kernels.layout import LlmBatch
from llm_local.kernels.library import Native

__all__ = ["NativeRunner"]

# Logits of so many tokens are kept as a buffer from step to step; a prompt whose every token is scored has its own.
KEPT_ROWS = 64


class NativeRunner:
    """Runs chunks of many sequences without transformers."""

    max_chunk_tokens: int | None = 512

    def __init__(self, model: NativeModel, budget: KVBudget, library: Native) -> None:
        self.model = model
        self.layout = model.layout
        self.budget = budget
        self.description = f"native step ({library.variant})"
        self._library = library
        self._scratch = library.new_scratch()
        self._num_threads = threads_for_bytes(model.weight_bytes)
        self._logits = torch.empty(0, model.vocab_size)

    def new_state(self, expected_tokens: int) -> SequenceKV:
        """Empty keys and values for one sequence."""
        return SequenceKV(self.budget, expected_tokens, self.layout)

    def run(self, chunks: SequenceOf[Chunk]) -> torch.Tensor:
        """One forward pass. Returns logits `[sum of num_logits, vocab]`, float32, good until the next pass."""
        use_threads(self._num_threads)  # for who samples from the logits
        row = PackedRow.of(chunks)
        row.make_room()
        self.model.reach(max(segment.kv.length + segment.length for segment in row.segments))
        logits = self._rows(len(row.kept))
        batch = LlmBatch(
            token_ids=(ctypes.c_int32 * len(row.token_ids))(*row.token_ids),
            segments=segment_structs(row),
            kept=(ctypes.c_int32 * len(row.kept))(*row.kept),
            logits=logits.data_ptr(),
            num_tokens=len(row.token_ids),
            num_segments=len(row.segments),
            num_kept=len(row.kept),
        )
        if batch.num_tokens < MANY_TOKENS:
            self._library.step(self.model.struct, batch, self._scratch, self._num_threads)
        else:
            batch.num_layers = 1
            for batch.first_layer in range(self.model.struct.num_layers):
                leave_if_abandoned(chunks)
                self._library.step(self.model.struct, batch, self._scratch, self._num_threads)
        row.advance()
        return logits

    def _rows(self, num_rows: int) -> torch.Tensor:
        if num_rows > KEPT_ROWS:
            return torch.empty(num_rows, self.model.vocab_size)
        if num_rows > len(self._logits):
            self._logits = torch.empty(num_rows, self.model.vocab_size)
        return self._logits[:num_rows]
