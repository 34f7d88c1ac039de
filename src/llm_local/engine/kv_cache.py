"""Keys and values of one sequence, and the byte budget all sequences share."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["KVBudget", "SequenceKV", "kv_bytes_per_token"]

# Storage comes in pieces of this many tokens: room for a short reply, so that a chat turn allocates once.
ALLOCATION_TOKENS = 256


class KVBudget:
    """Counts the bytes that sequences and the prefix cache hold. `limit_bytes` None means no limit.

    The budget refuses nothing: the scheduler asks before it lets a sequence grow.
    """

    def __init__(self, limit_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def fits(self, num_bytes: int) -> bool:
        """True when `num_bytes` more stay within the limit."""
        return self.limit_bytes is None or self.used_bytes + num_bytes <= self.limit_bytes


class _LayerKV:
    """One layer's keys and values, `[kv_heads, capacity, head_dim]` each.

    They hold the positions from `start` to `length`; a layer with a sliding window forgets what lies before it.
    """

    __slots__ = ("keys", "length", "start", "values", "window")

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, window: int | None) -> None:
        self.keys = keys
        self.values = values
        self.window = window
        self.start = 0
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[1]

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def first_visible(self, position: int) -> int:
        """The earliest position that a query at `position` or later can see."""
        return 0 if self.window is None else max(0, position + 1 - self.window)

    def read(self, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of the positions from `start` to `end`."""
        here = slice(start - self.start, end - self.start)
        return self.keys[:, here], self.values[:, here]

    def write(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put new positions behind the last one; the caller made room."""
        here = slice(self.length - self.start, self.length - self.start + keys.shape[1])
        self.keys[:, here] = keys
        self.values[:, here] = values
        self.length += keys.shape[1]

    def continued(self, capacity: int, start: int, end: int) -> _LayerKV:
        """A layer with room for `capacity` tokens that holds a copy of the positions from `start` to `end`."""
        layer = _LayerKV(_empty(self.keys, capacity), _empty(self.values, capacity), self.window)
        layer.start = layer.length = start
        layer.write(*self.read(start, end))
        return layer


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
        self, index: int, keys: torch.Tensor, values: torch.Tensor, window: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add `keys`, `values` `[kv_heads, new, head_dim]` to a layer; return all that the new tokens can see.

        Returns views `[kv_heads, visible, head_dim]` that end at the newest token: everything, or with a `window`
        what lies within it of the first new token.
        """
        layer = self._with_room(index, keys, values, window)
        first = layer.first_visible(layer.length)
        layer.write(keys, values)
        return layer.read(max(first, layer.start), layer.length)

    def bytes_to_append(self, num_new: int) -> int:
        """Bytes the next append of `num_new` tokens to every layer will add to the budget.

        Before the first append this is the price without sliding windows, an upper bound.
        """
        if not self._layers:
            return _rounded(max(num_new, self._expected_tokens)) * self._bytes_per_token
        return sum(
            layer.num_bytes // layer.capacity * (self._capacity(layer, num_new) - layer.capacity)
            for layer in self._layers.values()
        )

    def rollback(self, length: int) -> bool:
        """Forget what a failed forward half wrote beyond the first `length` tokens. Always works.

        Nothing that the token after them can see was forgotten: room is made before a write, not after it.
        """
        for layer in self._layers.values():
            layer.length = min(layer.length, length)
        return True

    def fork(self, source: SequenceKV, length: int) -> bool:
        """Start as a copy of the first `length` tokens of another sequence. False: it no longer has all of them."""
        layers = source._layers
        if any(layer.start > layer.first_visible(length) for layer in layers.values()):
            return False
        for index, layer in layers.items():
            start = layer.first_visible(length)
            capacity = _rounded(max(self._expected_tokens, length + 1) - start)
            self._put(index, layer.continued(capacity, start, length))
        return True

    def beginning(self, length: int) -> SequenceKV | None:
        """A copy of the first `length` tokens that takes no more room than they need; None when some are gone."""
        copy = SequenceKV(self._budget, length, self._bytes_per_token)
        return copy if copy.fork(self, length) else None

    def free(self) -> None:
        """Give everything back to the budget. The sequence can start again from nothing."""
        self._budget.used_bytes -= self.num_bytes
        self._layers.clear()

    def _capacity(self, layer: _LayerKV, num_new: int) -> int:
        """The capacity with which `layer` takes `num_new` more tokens."""
        kept = layer.length - max(layer.start, layer.first_visible(layer.length))
        if layer.length - layer.start + num_new <= layer.capacity or kept + num_new <= layer.capacity:
            return layer.capacity
        return _rounded(max(kept + num_new, kept * 3 // 2))

    def _with_room(
        self, index: int, keys: torch.Tensor, values: torch.Tensor, window: int | None
    ) -> _LayerKV:
        num_new = keys.shape[1]
        layer = self._layers.get(index)
        if layer is None:
            tokens = self._expected_tokens if window is None else min(self._expected_tokens, window + num_new)
            capacity = _rounded(max(tokens, num_new))
            layer = self._put(index, _LayerKV(_empty(keys, capacity), _empty(values, capacity), window))
        elif layer.length - layer.start + num_new > layer.capacity:
            # full: move what can still be seen to the front of a new storage
            start = max(layer.start, layer.first_visible(layer.length))
            moved = layer.continued(self._capacity(layer, num_new), start, layer.length)
            layer = self._put(index, moved)
        return layer

    def _put(self, index: int, layer: _LayerKV) -> _LayerKV:
        old = self._layers.get(index)
        self._budget.used_bytes += layer.num_bytes - (0 if old is None else old.num_bytes)
        self._layers[index] = layer
        return layer


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


def _rounded(num_tokens: int) -> int:
    return -(-num_tokens // ALLOCATION_TOKENS) * ALLOCATION_TOKENS


def _empty(like: torch.Tensor, capacity: int) -> torch.Tensor:
    return torch.empty((like.shape[0], capacity, like.shape[2]), dtype=like.dtype, device=like.device)
