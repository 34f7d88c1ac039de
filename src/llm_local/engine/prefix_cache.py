"""What finished sequences leave behind: keys and values to be found again by the tokens they belong to.

One radix tree per owner: an edge is a run of token ids, a leaf is the memory of one finished sequence. Whoever
comes with the same first tokens starts as a copy of that memory. Owners never see each other's trees.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from llm_local.engine.kv_cache import SequenceKV

__all__ = ["MIN_MATCH_TOKENS", "PrefixCache", "common_length"]

# A shorter match saves less than the copy costs.
MIN_MATCH_TOKENS = 16


class _Entry:
    """The memory of one finished sequence. `shared` is the longest beginning that another sequence came back for."""

    __slots__ = ("owner", "shared", "state", "token_ids", "used_at")

    def __init__(
        self, owner: str | None, token_ids: tuple[int, ...], state: SequenceKV, used_at: int
    ) -> None:
        self.owner = owner
        self.token_ids = token_ids
        self.state = state
        self.used_at = used_at
        self.shared = 0


class _Node:
    """A point in the tree; `edge` are the ids that lead to it."""

    __slots__ = ("children", "edge", "entry")

    def __init__(self, edge: tuple[int, ...]) -> None:
        self.edge = edge
        self.children: dict[int, _Node] = {}
        self.entry: _Entry | None = None

    def entries(self) -> Iterator[_Entry]:
        """Every entry at or below this point."""
        if self.entry is not None:
            yield self.entry
        for child in self.children.values():
            yield from child.entries()


class PrefixCache:
    """Keeps at most `limit_bytes`; the least useful goes first. Used from the engine's thread.

    Useful is what was asked for again: an entry whose beginning served others is first cut down to that beginning
    (a system prompt outlives the replies that followed it), and dropped only when its turn comes a second time.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._roots: dict[str | None, _Node] = {}
        self._entries: set[_Entry] = set()
        self._clock = itertools.count(1)

    @property
    def num_bytes(self) -> int:
        """Bytes held now; they count in the engine's budget too."""
        return sum(entry.state.num_bytes for entry in self._entries)

    def find(self, owner: str | None, token_ids: Sequence[int]) -> tuple[SequenceKV, int] | None:
        """The memory that begins with most of `token_ids`, and how many of them it has; None when too few."""
        node, matched = self._walk(owner, token_ids)
        if node is None or matched < MIN_MATCH_TOKENS:
            return None
        entry = next(node.entries())
        entry.used_at = next(self._clock)
        if matched < len(entry.token_ids):
            entry.shared = max(entry.shared, matched)
        return entry.state, matched

    def put(self, owner: str | None, token_ids: Sequence[int], state: SequenceKV) -> None:
        """Take over the memory of a finished sequence whose first `len(token_ids)` tokens are all computed."""
        state.rollback(len(token_ids))
        if len(token_ids) < MIN_MATCH_TOKENS or state.num_bytes > self._limit_bytes:
            state.free()
            return
        entry = _Entry(owner, tuple(token_ids), state, next(self._clock))
        self._insert(entry)
        while self.num_bytes > self._limit_bytes:
            self.evict()

    def evict(self) -> bool:
        """Give back the least useful bytes. False when nothing is left."""
        if not self._entries:
            return False
        entry = min(self._entries, key=lambda e: e.used_at)
        self._remove(entry)
        beginning = self._beginning(entry) if entry.shared else None
        entry.state.free()
        if beginning is not None:
            self._insert(beginning)
        return True

    def clear(self) -> None:
        """Forget everything."""
        for entry in self._entries:
            entry.state.free()
        self._entries.clear()
        self._roots.clear()

    def _beginning(self, entry: _Entry) -> _Entry | None:
        """A smaller entry with the part that others came back for; None when it would not be smaller."""
        state = entry.state.beginning(entry.shared)
        if state is None:
            return None
        if state.num_bytes >= entry.state.num_bytes:
            state.free()
            return None
        return _Entry(entry.owner, entry.token_ids[: entry.shared], state, entry.used_at)

    def _walk(self, owner: str | None, token_ids: Sequence[int]) -> tuple[_Node | None, int]:
        """The deepest node below which everything shares the first ids, and how many ids it shares."""
        node, matched = self._roots.get(owner), 0
        while node is not None and matched < len(token_ids):
            child = node.children.get(token_ids[matched])
            if child is None:
                break
            common = common_length(child.edge, token_ids[matched : matched + len(child.edge)])
            node, matched = child, matched + common
            if common < len(child.edge):
                break
        return node, matched

    def _insert(self, entry: _Entry) -> None:
        node, start = self._roots.setdefault(entry.owner, _Node(())), 0
        token_ids = entry.token_ids
        while start < len(token_ids):
            # what this entry continues is contained in it
            self._drop(node)
            child = node.children.get(token_ids[start])
            if child is None:
                child = node.children[token_ids[start]] = _Node(token_ids[start:])
            common = common_length(child.edge, token_ids[start : start + len(child.edge)])
            if common < len(child.edge):
                child = _split(node, child, common)
            node, start = child, start + common
        self._drop(node)
        if node.children:
            entry.state.free()  # a longer entry has it all
        else:
            node.entry = entry
            self._entries.add(entry)

    def _drop(self, node: _Node) -> None:
        if node.entry is not None:
            self._entries.discard(node.entry)
            node.entry.state.free()
            node.entry = None

    def _remove(self, entry: _Entry) -> None:
        """Take an entry out of its tree and prune the branch that led only to it."""
        self._entries.discard(entry)
        node, start = self._roots[entry.owner], 0
        branch, key = node, entry.token_ids[0]
        while start < len(entry.token_ids):
            if len(node.children) > 1 or node is self._roots[entry.owner]:
                branch, key = node, entry.token_ids[start]
            node = node.children[entry.token_ids[start]]
            start += len(node.edge)
        del branch.children[key]
        if not self._roots[entry.owner].children:
            del self._roots[entry.owner]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences begin with in common."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))


def _split(parent: _Node, child: _Node, length: int) -> _Node:
    """Put a node between parent and child, after `length` ids of the child's edge."""
    middle = _Node(child.edge[:length])
    parent.children[child.edge[0]] = middle
    child.edge = child.edge[length:]
    middle.children[child.edge[0]] = child
    return middle
