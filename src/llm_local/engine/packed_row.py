"""What goes into one forward pass: all scheduled tokens of all sequences, side by side in one row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from llm_local.engine.kv_cache import SequenceKV
from llm_local.engine.sequence import Chunk

__all__ = ["PackedRow", "Segment"]


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` tokens at `offset` of the packed row, the next ones of the sequence whose memory is `kv`."""

    kv: SequenceKV
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PackedRow:
    """The ids of all tokens, whose they are, and the places in the row whose logits are wanted."""

    token_ids: list[int]
    segments: list[Segment]
    kept: list[int]

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> PackedRow:
        """Chunks one behind the other."""
        row = cls([], [], [])
        for chunk in chunks:
            kv = cast(SequenceKV, chunk.sequence.state)
            row.segments.append(Segment(kv, len(row.token_ids), chunk.length))
            row.token_ids.extend(chunk.token_ids)
            row.kept.extend(range(len(row.token_ids) - chunk.num_logits, len(row.token_ids)))
        return row

    def positions(self) -> Iterator[int]:
        """Each token's position in its own sequence."""
        for segment in self.segments:
            yield from range(segment.kv.length, segment.kv.length + segment.length)

    def make_room(self) -> None:
        """Storage for every segment in every layer, for whoever writes to it directly."""
        for segment in self.segments:
            segment.kv.make_room(segment.length)

    def advance(self) -> None:
        """The pass is done: its tokens are in the memory of their sequences."""
        for segment in self.segments:
            segment.kv.advance(segment.length)
