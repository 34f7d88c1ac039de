"""Keys and values of one sequence, and the byte budget all sequences share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["KVBudget", "KVLayout", "SequenceKV", "kv_layout"]

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


@dataclass(frozen=True, slots=True)
class KVLayout:
    """What keys and values cost: bytes of one token in one layer, and each layer's sliding window in tokens."""

    layer_bytes: int
    windows: tuple[int | None, ...]

    @property
    def bytes_per_token(self) -> int:
        """Bytes one token costs in all layers, as long as it lies in every window."""
        return self.layer_bytes * len(self.windows)

    def first_bytes(self, num_new: int, expected_tokens: int) -> int:
        """Bytes the first append of `num_new` tokens allocates, with room for `expected_tokens`."""
        capacities = (_first_capacity(num_new, expected_tokens, window) for window in self.windows)
        return self.layer_bytes * sum(capacities)


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

    def has(self, length: int) -> bool:
        """True when nothing is gone that the token after the first `length` could see."""
        return self.start <= self.first_visible(length) and length <= self.length

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

    def __init__(self, budget: KVBudget, expected_tokens: int, layout: KVLayout) -> None:
        self._budget = budget
        self._expected_tokens = expected_tokens
        self._layout = layout
        self._layers: dict[int, _LayerKV] = {}

    @property
    def windows(self) -> dict[int, int | None]:
        """The sliding window of each layer that has been written to."""
        return {index: layer.window for index, layer in self._layers.items()}

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
        """Bytes the next append of `num_new` tokens to every layer will add to the budget."""
        if not self._layers:
            return self._layout.first_bytes(num_new, self._expected_tokens)
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

    def can_fork(self, length: int) -> bool:
        """True when another sequence can start from this one's first `length` tokens."""
        return bool(self._layers) and all(layer.has(length) for layer in self._layers.values())

    def bytes_to_fork(self, length: int, room: int) -> int:
        """Bytes that a copy of the first `length` tokens takes, with room for `room` tokens."""
        return sum(
            layer.num_bytes // layer.capacity * _rounded(room - layer.first_visible(length))
            for layer in self._layers.values()
        )

    def fork(self, source: SequenceKV, length: int, room: int) -> None:
        """Start as a copy of the first `length` tokens of another sequence (see `can_fork`), all or nothing."""
        copies = {
            index: layer.continued(
                _rounded(room - layer.first_visible(length)), layer.first_visible(length), length
            )
            for index, layer in source._layers.items()
        }
        for index, layer in copies.items():
            self._put(index, layer)

    def shrink(self, length: int) -> None:
        """Keep the first `length` tokens (see `can_fork`) and no room beyond them, layer by layer."""
        for index, layer in list(self._layers.items()):
            start = layer.first_visible(length)
            self._put(index, layer.continued(_rounded(length - start), start, length))

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
            capacity = _first_capacity(num_new, self._expected_tokens, window)
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


def kv_layout(model: Any) -> KVLayout:
    """The layout of a model's keys and values, from its configuration."""
    config = model.config.get_text_config()
    num_heads = getattr(config, "num_attention_heads", None)
    if not num_heads:
        return KVLayout(0, ())  # no attention, no growing memory
    heads = getattr(config, "num_key_value_heads", None) or num_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    # multi-head latent attention has keys and values of different sizes
    key_dim = getattr(config, "qk_head_dim", None) or head_dim
    value_dim = getattr(config, "v_head_dim", None) or head_dim
    return KVLayout(heads * (key_dim + value_dim) * model.dtype.itemsize, _windows(config))


def _windows(config: Any) -> tuple[int | None, ...]:
    """Each layer's sliding window, None where it sees everything."""
    window = getattr(config, "sliding_window", None)
    if not window or getattr(config, "use_sliding_window", True) is False:
        return (None,) * config.num_hidden_layers
    layer_types = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return tuple(window if layer_type == "sliding_attention" else None for layer_type in layer_types)


def _first_capacity(num_new: int, expected_tokens: int, window: int | None) -> int:
    """Tokens of storage a layer starts with: no more than a window and the new ones, where it has a window."""
    expected = expected_tokens if window is None else min(expected_tokens, window + num_new)
    return _rounded(max(expected, num_new))


def _rounded(num_tokens: int) -> int:
    return -(-num_tokens // ALLOCATION_TOKENS) * ALLOCATION_TOKENS


def _empty(like: torch.Tensor, capacity: int) -> torch.Tensor:
    return torch.empty((like.shape[0], capacity, like.shape[2]), dtype=like.dtype, device=like.device)
