"""Keys and values of one sequence, and the byte budget all sequences share."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from llm_local.kernels.layout import LlmKV
from llm_local.kernels.linear import kv_dtype

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
    """The shape of one token's keys and values in a layer, and each layer's sliding window in tokens.

    `dtype` is that of the storage, whatever the model computes in.
    """

    heads: int
    key_dim: int
    value_dim: int
    dtype: torch.dtype
    windows: tuple[int | None, ...]

    @property
    def layer_bytes(self) -> int:
        """Bytes one token costs in one layer."""
        return self.heads * (self.key_dim + self.value_dim) * self.dtype.itemsize

    @property
    def bytes_per_token(self) -> int:
        """Bytes one token costs in all layers, as long as it lies in every window."""
        return self.layer_bytes * len(self.windows)

    def first_bytes(self, num_new: int, expected_tokens: int) -> int:
        """Bytes the first append of `num_new` tokens allocates, with room for `expected_tokens`."""
        return self.layer_bytes * sum(self._first_capacities(num_new, expected_tokens))

    def first_layers(self, num_new: int, expected_tokens: int) -> list[_LayerKV]:
        """The storage that costs `first_bytes`."""
        return [
            _LayerKV(
                torch.empty((self.heads, capacity, self.key_dim), dtype=self.dtype),
                torch.empty((self.heads, capacity, self.value_dim), dtype=self.dtype),
                window,
            )
            for capacity, window in zip(
                self._first_capacities(num_new, expected_tokens), self.windows, strict=True
            )
        ]

    def _first_capacities(self, num_new: int, expected_tokens: int) -> list[int]:
        return [_first_capacity(num_new, expected_tokens, window) for window in self.windows]


class _LayerKV:
    """One layer's storage, `[kv_heads, capacity, head_dim]` for keys and for values, from position `start` on.

    A layer with a sliding window forgets what lies before it.
    """

    __slots__ = ("keys", "start", "values", "window")

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, window: int | None, start: int = 0) -> None:
        self.keys = keys
        self.values = values
        self.window = window
        self.start = start

    @property
    def capacity(self) -> int:
        return self.keys.shape[1]

    @property
    def end(self) -> int:
        """The first position there is no room for."""
        return self.start + self.capacity

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

    def write(self, position: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put keys and values at `position` and after it; the caller made room."""
        own_keys, own_values = self.read(position, position + keys.shape[1])
        own_keys.copy_(keys)
        own_values.copy_(values)

    def continued(self, capacity: int, start: int, end: int) -> _LayerKV:
        """A layer with room for `capacity` tokens that holds a copy of the positions from `start` to `end`."""
        layer = _LayerKV(_empty(self.keys, capacity), _empty(self.values, capacity), self.window, start)
        layer.write(start, *self.read(start, end))
        return layer


class SequenceKV:
    """One sequence's keys and values in all layers, and how many tokens all of them have (`length`).

    A forward pass writes behind `length`, layer by layer, and `advance` makes it count when all have it: one that
    fails has changed nothing. The first allocation has room for `expected_tokens`; after that storage grows by half
    of itself, so appending n tokens copies O(n) in total.
    """

    def __init__(self, budget: KVBudget, expected_tokens: int, layout: KVLayout) -> None:
        self._budget = budget
        self._expected_tokens = expected_tokens
        self._layout = layout
        self._layers: dict[int, _LayerKV] = {}
        self._end = 0  # the first position that some layer has no room for
        self._rows: ctypes.Array[LlmKV] | None = None
        self.length = 0
        self.num_bytes = 0

    @property
    def windows(self) -> dict[int, int | None]:
        """The sliding window of each layer that has been written to."""
        return {index: layer.window for index, layer in self._layers.items()}

    def append(
        self, index: int, keys: torch.Tensor, values: torch.Tensor, window: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write `keys`, `values` `[kv_heads, new, head_dim]` to a layer; return all that the new tokens can see.

        Returns views `[kv_heads, visible, head_dim]` that end at the newest token: everything, or with a `window`
        what lies within it of the first new token. A layer that comes for the first time brings its shape with it.
        """
        num_new = keys.shape[1]
        layer = old = self._layers.get(index)
        if layer is None:
            capacity, dtype = _first_capacity(num_new, self._expected_tokens, window), self._layout.dtype
            layer = _LayerKV(_empty(keys, capacity, dtype), _empty(values, capacity, dtype), window)
        layer = self._with_room(layer, num_new)
        if layer is not old:
            self._put({index: layer})
        layer.write(self.length, keys, values)
        first = max(layer.first_visible(self.length), layer.start)
        return layer.read(first, self.length + num_new)

    def make_room(self, num_new: int) -> None:
        """Make room for `num_new` more tokens in every layer at once, for whoever writes to storage directly."""
        if self.length + num_new <= self._end:
            return
        if self._layers:
            self._put({index: self._with_room(layer, num_new) for index, layer in self._layers.items()})
        else:
            self._put(dict(enumerate(self._layout.first_layers(num_new, self._expected_tokens))))

    def rows(self) -> ctypes.Array[LlmKV]:
        """Where each layer's keys and values lie, for the native library. Good until storage changes: ask each time."""
        if self._rows is None:
            layers = [self._layers[index] for index in range(len(self._layers))]
            self._rows = (LlmKV * len(layers))(
                *(
                    LlmKV(one.keys.data_ptr(), one.values.data_ptr(), one.capacity, one.start)
                    for one in layers
                )
            )
        return self._rows

    def advance(self, num_new: int) -> None:
        """The next `num_new` tokens are in every layer now."""
        self.length += num_new

    def bytes_to_append(self, num_new: int) -> int:
        """Bytes the next append of `num_new` tokens to every layer will add to the budget."""
        if not self._layers:
            return self._layout.first_bytes(num_new, self._expected_tokens)
        if self.length + num_new <= self._end:
            return 0
        return sum(
            layer.num_bytes // layer.capacity * (self._capacity(layer, num_new) - layer.capacity)
            for layer in self._layers.values()
        )

    def rollback(self, length: int) -> bool:
        """Forget what lies beyond the first `length` tokens. Always works.

        Nothing that the token after them can see was forgotten: room is made before a write, not after it.
        """
        self.length = min(self.length, length)
        return True

    def can_fork(self, length: int) -> bool:
        """True when another sequence can start from this one's first `length` tokens."""
        if not self._layers or length > self.length:
            return False
        return all(layer.start <= layer.first_visible(length) for layer in self._layers.values())

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
        self._put(copies)
        self.length = length

    def bytes_to_branch(self, length: int, room: int) -> int:
        """Bytes that `branch` will add."""
        return self.bytes_to_fork(length, room)

    def branch(self, length: int, room: int) -> SequenceKV:
        """A copy of the first `length` tokens, with room for `room` tokens."""
        copy = SequenceKV(self._budget, room, self._layout)
        copy.fork(self, length, room)
        return copy

    def shrink(self, length: int) -> None:
        """Keep the first `length` tokens (see `can_fork`) and no room beyond them, layer by layer."""
        self.length = length
        for index, layer in list(self._layers.items()):
            start = layer.first_visible(length)
            self._put({index: layer.continued(_rounded(length - start), start, length)})

    def free(self) -> None:
        """Give everything back to the budget. The sequence can start again from nothing."""
        self._budget.used_bytes -= self.num_bytes
        self._layers.clear()
        self._rows = None
        self.length = self.num_bytes = self._end = 0

    def _capacity(self, layer: _LayerKV, num_new: int) -> int:
        """The capacity with which `layer` takes `num_new` more tokens."""
        kept = self.length - max(layer.start, layer.first_visible(self.length))
        if self.length + num_new <= layer.end or kept + num_new <= layer.capacity:
            return layer.capacity
        return _rounded(max(kept + num_new, kept * 3 // 2))

    def _with_room(self, layer: _LayerKV, num_new: int) -> _LayerKV:
        """The layer itself, or when it is full what can still be seen of it at the front of a new storage."""
        if self.length + num_new <= layer.end:
            return layer
        start = max(layer.start, layer.first_visible(self.length))
        return layer.continued(self._capacity(layer, num_new), start, self.length)

    def _put(self, layers: Mapping[int, _LayerKV]) -> None:
        """Add layers, or put new ones in the places of old ones."""
        self._layers.update(layers)
        self._rows = None
        num_bytes = sum(layer.num_bytes for layer in self._layers.values())
        self._budget.used_bytes += num_bytes - self.num_bytes
        self.num_bytes = num_bytes
        self._end = min((layer.end for layer in self._layers.values()), default=0)


def kv_layout(model: Any) -> KVLayout:
    """The layout of a model's keys and values, from its configuration."""
    config = model.config.get_text_config()
    num_heads = getattr(config, "num_attention_heads", None)
    if not num_heads:
        return KVLayout(0, 0, 0, model.dtype, ())  # no attention, no growing memory
    heads = getattr(config, "num_key_value_heads", None) or num_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    # multi-head latent attention has keys and values of different sizes
    key_dim = getattr(config, "qk_head_dim", None) or head_dim
    value_dim = getattr(config, "v_head_dim", None) or head_dim
    return KVLayout(heads, key_dim, value_dim, kv_dtype(model), _windows(config))


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


def _empty(like: torch.Tensor, capacity: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    return like.new_empty((like.shape[0], capacity, like.shape[2]), dtype=dtype)
