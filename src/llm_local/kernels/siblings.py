"""Linear layers that are given the same input one after the other: computed together, for whoever is asked first.

One call instead of three: the threads meet once, and the input is brought into the form of the weights once. Every
output has the bits that it has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

import torch
from torch import nn

__all__ = ["Joined", "Siblings", "join_siblings", "part_siblings"]

# What architectures call layers that read one input. Those that in fact do not are parted when that is seen.
_NAMES: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))

Compute = Callable[[Sequence[Any], torch.Tensor], list[torch.Tensor]]


class Joined(Protocol):
    """A layer that may have siblings."""

    in_features: int
    siblings: Siblings | None


class Siblings:
    """Some layers of one input. `compute` gives the outputs of several layers."""

    def __init__(self, layers: Sequence[Joined], compute: Compute) -> None:
        self._layers = list(layers)
        self._compute = compute
        self._input: torch.Tensor | None = None
        self._waiting: dict[int, torch.Tensor] = {}  # outputs that nobody has asked for yet, by layer
        for layer in layers:
            layer.siblings = self

    def output(self, layer: Joined, x: torch.Tensor) -> torch.Tensor:
        """What `layer` makes of `x`. Each output is handed out once, and kept no longer."""
        index = next(index for index, one in enumerate(self._layers) if one is layer)
        if x is self._input and index in self._waiting:
            output = self._waiting.pop(index)
            if not self._waiting:
                self._input = None
            return output
        if self._waiting:  # the input before this one was not for all of them
            self.part()
            return self._compute([layer], x)[0]
        outputs = self._compute(self._layers, x)
        self._input, self._waiting = x, dict(enumerate(outputs))
        return self._waiting.pop(index)

    def part(self) -> None:
        """Let each compute its own again."""
        for layer in self._layers:
            layer.siblings = None
        self._input = None
        self._waiting.clear()


def join_siblings(model: nn.Module, kind: type[Any], compute: Compute) -> int:
    """Join the layers of class `kind` that read one input, by their names; returns how many groups there are."""
    part_siblings(model)
    groups = [group for parent in model.modules() for group in _groups(parent, kind)]
    for group in groups:
        Siblings(group, compute)
    return len(groups)


def part_siblings(model: nn.Module) -> None:
    """Undo `join_siblings`."""
    for module in model.modules():
        joined = getattr(module, "siblings", None)
        if isinstance(joined, Siblings):
            joined.part()


def _groups(parent: nn.Module, kind: type[Any]) -> Iterator[list[Any]]:
    for names in _NAMES:
        found = [parent._modules.get(name) for name in names]
        if all(isinstance(one, kind) for one in found):
            layers: list[Any] = found
            if len({one.in_features for one in layers}) == 1:
                yield layers
