"""Keys and values of one sequence, and the byte budget all sequences share."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["KVBudget", "SequenceKV", "kv_bytes_per_token"]

# Storage comes in pieces of this many tokens: room for a short reply, so that a chat turn allocates once.
ALLOCATION_TOKENS = 256


class KVBudget:
    """Counts the bytes that sequences hold. `limit_bytes` None means no limit.

    The budget refuses nothing: the scheduler asks before it lets a sequence grow.
    """

    def __init__(self, limit_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def fits(self, num_bytes: int) -> bool:
        """True when `num_bytes` more stay within the limit."""
        return self.limit_bytes is None or self.used_bytes + num_bytes <= self.limit_bytes


class _LayerKV:
    """One layer's keys and values, `[kv_heads, capacity, head_dim]` each; the first `length` are filled."""

    __slots__ = ("keys", "length", "values")

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys = keys
        self.values = values
        self.length = 0

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class SequenceKV:
    """One sequence's keys and values in all layers.

    The first allocation has room for `expected_tokens`; after that storage grows by half of itself, so appending
    n tokens copies O(n) in total. Layers appear at their first append: their shapes are the model's business.
    """

    def __init__(self, budget: KVBudget, expected_tokens: int, bytes_per_token: int) -> None:
        self._budget = budget
        self._expected_tokens = expected_tokens
        self._bytes_per_token = bytes_per_token
        self._layers: dict[int, _LayerKV] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes allocated for this sequence."""
        return sum(layer.num_bytes for layer in self._layers.values())

    def append(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add `keys`, `values` `[kv_heads, new, head_dim]`; return the layer's, `[kv_heads, length, head_dim]`."""
        stored = self._with_room(layer, keys, values)
        old_length, stored.length = stored.length, stored.length + keys.shape[1]
        stored.keys[:, old_length : stored.length] = keys
        stored.values[:, old_length : stored.length] = values
        return stored.keys[:, : stored.length], stored.values[:, : stored.length]

    def bytes_to_append(self, num_new: int) -> int:
        """Bytes the next append of `num_new` tokens to every layer will add to the budget."""
        if not self._layers:
            return self._capacity(0, 0, num_new) * self._bytes_per_token
        added = 0
        for layer in self._layers.values():
            capacity = layer.keys.shape[1]
            grown = self._capacity(capacity, layer.length, num_new)
            added += layer.num_bytes // capacity * (grown - capacity)
        return added

    def rollback(self, length: int) -> bool:
        """Forget what a failed forward half wrote beyond the first `length` tokens. Always works."""
        for layer in self._layers.values():
            layer.length = min(layer.length, length)
        return True

    def free(self) -> None:
        """Give everything back to the budget. The sequence can start again from nothing."""
        self._budget.used_bytes -= self.num_bytes
        self._layers.clear()

    def _capacity(self, capacity: int, length: int, num_new: int) -> int:
        """The capacity that holds `num_new` more tokens."""
        needed = length + num_new
        if needed <= capacity:
            return capacity
        wanted = max(needed, length * 3 // 2 if capacity else self._expected_tokens)
        return -(-wanted // ALLOCATION_TOKENS) * ALLOCATION_TOKENS

    def _with_room(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> _LayerKV:
        old = self._layers.get(layer)
        old_capacity, old_length = (0, 0) if old is None else (old.keys.shape[1], old.length)
        capacity = self._capacity(old_capacity, old_length, keys.shape[1])
        if old is not None and capacity == old_capacity:
            return old
        grown = _LayerKV(_empty(keys, capacity), _empty(values, capacity))
        if old is not None:
            grown.length = old_length
            grown.keys[:, :old_length] = old.keys[:, :old_length]
            grown.values[:, :old_length] = old.values[:, :old_length]
            self._budget.used_bytes -= old.num_bytes
        self._budget.used_bytes += grown.num_bytes
        self._layers[layer] = grown
        return grown


def kv_bytes_per_token(model: Any) -> int:
    """Bytes of keys and values one token costs in all layers, from the model's configuration."""
    config = model.config.get_text_config()
    num_heads = getattr(config, "num_attention_heads", None)
    if not num_heads:
        return 0  # no attention, no growing memory
    heads = getattr(config, "num_key_value_heads", None) or num_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    # multi-head latent attention has keys and values of different sizes
    key_dim = getattr(config, "qk_head_dim", None) or head_dim
    value_dim = getattr(config, "v_head_dim", None) or head_dim
    itemsize: int = model.dtype.itemsize
    return int(config.num_hidden_layers * heads * (key_dim + value_dim) * itemsize)


def _empty(like: torch.Tensor, capacity: int) -> torch.Tensor:
    return torch.empty((like.shape[0], capacity, like.shape[2]), dtype=like.dtype, device=like.device)
