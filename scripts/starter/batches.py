"""An endless, reproducible stream of batches: rows of similar length together, so that little is padding."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .corpus import LONG_FAMILIES, draw
from .rendering import Renderer, Row
from .tokenizer import CONTEXT

ROW_TOKENS = 512
_NOT_LEARNED = -100


@dataclass(frozen=True)
class Batch:
    """``ids`` [rows, tokens]; ``targets`` [rows, tokens] is the next id where it is learned, else -100."""

    ids: Tensor
    targets: Tensor


@dataclass(frozen=True)
class BatchPlan:
    """How rows become batches. ``echo_share`` is the share of rows of random tokens that repeat themselves;
    from pool ``late_from`` on the late shares of the corpus count, from ``varied_from`` on its values are rarer."""

    seed: int
    batch_tokens: int = 2048
    pool_batches: int = 24
    echo_share: float = 0.10
    late_from: int = 144
    varied_from: int = 200


def to_batch(rows: list[Row], pad: int = 0) -> Batch:
    """Pad rows on the right. No attention mask is needed: causal attention never looks at what comes later."""
    longest = max(len(row.ids) for row in rows) - 1
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    targets = torch.full((len(rows), longest), _NOT_LEARNED, dtype=torch.long)
    for index, row in enumerate(rows):
        size = len(row.ids) - 1
        ids[index, :size] = torch.tensor(row.ids[:-1])
        wanted = [one if learned else _NOT_LEARNED for one, learned in zip(row.ids, row.learned, strict=True)]
        targets[index, :size] = torch.tensor(wanted[1:])
    return Batch(ids, targets)


def rounded(batch: Batch) -> Batch:
    """Pad to one of few shapes: the matrix library prepares itself anew for each shape, which costs a quarter of the time."""
    rows, tokens = batch.ids.shape
    room = (0, -tokens % 8, 0, -rows % 4 if rows > 16 else 0)
    return Batch(functional.pad(batch.ids, room), functional.pad(batch.targets, room, value=_NOT_LEARNED))


def echo_row(rng: random.Random, vocabulary: int) -> Row:
    """Random tokens that repeat themselves; only the repeats are learned. It teaches to copy what is unknown."""
    size = rng.randint(4, 32)
    unit = [rng.randrange(3, vocabulary) for _ in range(size)]
    times = rng.randint(2, 3)
    gap = [rng.randrange(3, vocabulary) for _ in range(rng.randint(0, 6))]
    ids, learned = list(unit), [False] * size
    for _ in range(times - 1):
        ids += gap + unit
        learned += [False] * (len(gap) + 1) + [True] * (size - 1)
    return Row(ids, learned)


def pool(renderer: Renderer, plan: BatchPlan, number: int, vocabulary: int) -> list[Batch]:
    """Pool ``number`` of the stream: always the same for the same seed, so a resumed run goes on where it was."""
    rng = random.Random(f"pool {plan.seed} {number}")
    rows: list[Row] = []
    tokens = 0
    while tokens < plan.batch_tokens * plan.pool_batches:
        if rng.random() < plan.echo_share:
            row = echo_row(rng, vocabulary)
        else:
            family, dialogue = draw(rng, number >= plan.late_from, number >= plan.varied_from)
            row = renderer.row(dialogue)
            if len(row.ids) > (CONTEXT if family in LONG_FAMILIES else ROW_TOKENS):
                continue
        rows.append(row)
        tokens += len(row.ids)
    rows.sort(key=lambda row: len(row.ids))
    batches = [rounded(to_batch(group)) for group in _groups(rows, plan.batch_tokens)]
    rng.shuffle(batches)
    return batches


def _groups(rows: list[Row], batch_tokens: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        if group and len(row.ids) * (len(group) + 1) > batch_tokens:
            yield group
            group = []
        group.append(row)
    yield group
