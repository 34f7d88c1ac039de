"""Gradients from several processes, one core each, over weights in shared memory.

Two cores that meet after every operation lose much of their time to waiting, most of all on a busy machine. Here each
process computes whole batches of its own, and they meet once a step.
"""

import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch import multiprocessing as processes

from .batches import Batch
from .forward import FastForward

StepBatches = Iterator[list[Batch]]


class Tally(NamedTuple):
    """What a process adds to a step: the summed loss, the learned positions, and all tokens."""

    loss: float
    learned: int
    tokens: int


def _accumulate(forward: FastForward, batches: list[Batch], into: Tensor) -> Tally:
    """Write the gradient of the summed loss into the flat tensor ``into``."""
    parameters = list(forward.model.parameters())
    into.zero_()
    loss = 0.0
    for batch in batches:
        value = forward.loss(batch.ids, batch.targets)
        gradients = torch.autograd.grad(value, parameters)
        into += torch.cat([one.flatten() for one in gradients])
        loss += value.item()
    learned = sum(int((batch.targets >= 0).sum()) for batch in batches)
    return Tally(loss, learned, sum(int((batch.ids > 0).sum()) for batch in batches))


def _serve(
    rank: int, count: int, forward: FastForward, stream: StepBatches, flat: Tensor, door: Connection
) -> None:
    """The life of a helper process: at each word from the door, the gradient of its share of the next step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    torch.set_num_threads(1)
    while door.recv():
        door.send(_accumulate(forward, next(stream)[rank::count], flat))


class Workers:
    """``count`` processes, this one included. All draw the same stream and each takes its share of every step."""

    def __init__(self, count: int, forward: FastForward, make_stream: Callable[[], StepBatches]) -> None:
        self._forward, self._stream, self._count = forward, make_stream(), count
        size = sum(one.numel() for one in forward.model.parameters())
        forward.model.share_memory()
        self._flat = [torch.zeros(size).share_memory_() for _ in range(count)]
        context = processes.get_context("fork")
        self._doors: list[Connection] = []
        torch.set_num_threads(1)
        for rank in range(1, count):
            ours, theirs = context.Pipe()
            arguments = (rank, count, forward, make_stream(), self._flat[rank], theirs)
            context.Process(target=_serve, args=arguments, daemon=True).start()
            self._doors.append(ours)

    def gradients(self) -> Tally:
        """Leave the mean gradient of the next step in the parameters."""
        for door in self._doors:
            door.send(True)
        tallies = [_accumulate(self._forward, next(self._stream)[:: self._count], self._flat[0])]
        tallies += [door.recv() for door in self._doors]
        total = Tally(*(sum(column) for column in zip(*tallies, strict=True)))
        mean = torch.stack(self._flat).sum(0).div_(total.learned)
        _hand_out(mean, self._forward.model)
        return total

    def close(self) -> None:
        """End the helper processes."""
        for door in self._doors:
            door.send(False)


def _hand_out(flat: Tensor, model: nn.Module) -> None:
    position = 0
    for parameter in model.parameters():
        parameter.grad = flat[position : position + parameter.numel()].view_as(parameter)
        position += parameter.numel()
