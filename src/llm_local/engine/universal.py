"""The universal path: any causal model transformers can run, one sequence at a time, with the model's own cache.

For architectures that are more than attention (state spaces, convolutions, position biases) and for rotary
embeddings that depend on the length of the whole input. Same protocol, same laws, less speed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from typing import Any, cast

import torch

from llm_local.engine.abandoned import leaving_between_layers
from llm_local.engine.kv_cache import KVBudget, kv_layout
from llm_local.engine.sequence import Chunk
from llm_local.engine.threads import threads_for, use_threads

__all__ = ["ModelCache", "UniversalRunner"]


class ModelCache:
    """What a model remembers of one sequence, in whatever form it likes; None before the first token."""

    def __init__(self, budget: KVBudget, bytes_per_token: int) -> None:
        self._budget = budget
        self._bytes_per_token = bytes_per_token
        self.num_bytes = 0
        self.content: Any = None

    def bytes_to_append(self, num_new: int) -> int:
        """An estimate: the layout of the cache is the model's business."""
        return self._bytes_per_token * num_new

    def rollback(self, length: int) -> bool:
        """A state cannot go back in time: forget everything, and say so."""
        self.free()
        return False

    def bytes_to_branch(self, length: int, room: int) -> int:
        """None: what is here gives way."""
        return 0

    def branch(self, length: int, room: int) -> ModelCache:
        """Empty memory in place of this one: not every state can be copied and continued by several tokens."""
        self.free()
        return ModelCache(self._budget, self._bytes_per_token)

    def store(self, content: Any) -> None:
        """Keep the cache a forward pass returned, and count its bytes."""
        self.content = content
        num_bytes = sum(tensor.nbytes for tensor in _tensors(content))
        self._budget.used_bytes += num_bytes - self.num_bytes
        self.num_bytes = num_bytes

    def free(self) -> None:
        """Give everything back."""
        self.store(None)


class UniversalRunner:
    """Runs each chunk in a forward pass of its own. Prompts go in whole: not every state can be continued."""

    max_chunk_tokens: int | None = None
    description = "universal path, one sequence at a time"

    def __init__(self, model: Any, budget: KVBudget) -> None:
        self._model = model
        self._num_threads = threads_for(model)
        self._cache_name = (
            "cache_params"
            if "cache_params" in inspect.signature(model.forward).parameters
            else "past_key_values"
        )
        self._bytes_per_token = kv_layout(model).bytes_per_token
        self._rope_boundary = _rope_boundary(model.config.get_text_config())
        self.budget = budget

    def new_state(self, expected_tokens: int) -> ModelCache:
        """An empty cache; the model makes its own at the first forward pass."""
        return ModelCache(self.budget, self._bytes_per_token)

    def run(self, chunks: SequenceOf[Chunk]) -> torch.Tensor:
        """Logits `[sum of num_logits, vocab]`, float32 on the CPU, in chunk order."""
        use_threads(self._num_threads)
        return torch.cat([self._run_one(chunk) for chunk in chunks])

    def _run_one(self, chunk: Chunk) -> torch.Tensor:
        sequence, state = chunk.sequence, cast(ModelCache, chunk.sequence.state)
        past, total = sequence.num_computed, sequence.num_computed + chunk.length
        if self._rope_boundary is not None and past <= self._rope_boundary < total:
            # what was computed with the embedding for short inputs is wrong from here on
            state.free()
        # a model without a cache reads everything again for every token
        token_ids = sequence.tokens if state.content is None else chunk.token_ids
        cache = {self._cache_name: state.content, "use_cache": True}
        with torch.inference_mode(), leaving_between_layers(self._model, [chunk]):
            output = self._model(
                input_ids=torch.tensor([token_ids], device=self._model.device),
                logits_to_keep=chunk.num_logits,
                **cache,
            )
        state.store(getattr(output, self._cache_name, None))
        return output.logits[0].float().cpu()


def _rope_boundary(config: Any) -> int | None:
    """Where a `longrope` embedding changes for all tokens, as transformers' `generate` treats it; None without one."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    boundary = rope.get("original_max_position_embeddings")
    return cast("int | None", boundary or getattr(config, "original_max_position_embeddings", None))


def _tensors(value: Any) -> Iterable[torch.Tensor]:
    """Every tensor in a cache: in its layers, their attributes, and containers of those."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "layers") or "cache" in type(value).__module__:
        yield from _tensors(vars(value))
