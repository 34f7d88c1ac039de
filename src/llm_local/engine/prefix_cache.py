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
        stack = [self]
        while stack:
            node = stack.pop()
            if node.entry is not None:
                yield node.entry
            stack.extend(node.children.values())


class PrefixCache:
    """Keeps at most `limit_bytes`; the least useful goes first. Used from the engine's thread.

    Useful is what was asked for again: an entry whose beginning served others is first cut down to that beginning
    (a system prompt outlives the replies that followed it), and dropped only when its turn comes a second time.
    Only owners who hold at least their equal share lose something, so nobody can push out what others keep.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._roots: dict[str | None, _Node] = {}
        self._entries: set[_Entry] = set()
        self._clock = itertools.count(1)

    @property
    def num_bytes(self) -> int:
        """Bytes held now; they count in the engine's budget too. May be asked from any thread."""
        return sum(entry.state.num_bytes for entry in tuple(self._entries))

    def find(self, owner: str | None, token_ids: Sequence[int]) -> tuple[SequenceKV, int] | None:
        """The memory that begins with most of `token_ids`, and how many of them it has; None when too few."""
        path, matched = self._walk(owner, token_ids)
        below = ((entry, matched) for node in path[-1:] for entry in node.entries())
        # where windows moved on, a shorter sequence that ended earlier may still do
        before = ((n.entry, len(n.entry.token_ids)) for n in reversed(path[:-1]) if n.entry is not None)
        for entry, length in itertools.chain(below, before):
            if length >= MIN_MATCH_TOKENS and entry.state.can_fork(length):
                entry.used_at = next(self._clock)
                if length < len(entry.token_ids):
                    entry.shared = max(entry.shared, length)
                return entry.state, length
        return None

    def put(self, owner: str | None, token_ids: Sequence[int], state: SequenceKV) -> None:
        """Take over the memory of a finished sequence whose first `len(token_ids)` tokens are all computed."""
        state.rollback(len(token_ids))
        if len(token_ids) < MIN_MATCH_TOKENS or state.num_bytes > self._limit_bytes:
            state.free()
            return
        self._insert(_Entry(owner, tuple(token_ids), state, next(self._clock)))
        while self.num_bytes > self._limit_bytes:
            self.evict()

    def evict(self) -> bool:
        """Give back the least useful bytes. False when nothing is left."""
        if not self._entries:
            return False
        entry = min(self._above_their_share(), key=lambda e: e.used_at)
        self._remove(entry)
        if entry.shared and _shrinks(entry):
            self._insert(entry)
        else:
            entry.state.free()
        return True

    def clear(self) -> None:
        """Forget everything."""
        for entry in self._entries:
            entry.state.free()
        self._entries.clear()
        self._roots.clear()

    def _above_their_share(self) -> list[_Entry]:
        """The entries of owners who hold no less than the mean over all of them."""
        held: dict[str | None, int] = {}
        for entry in self._entries:
            held[entry.owner] = held.get(entry.owner, 0) + entry.state.num_bytes
        total = sum(held.values())
        return [entry for entry in self._entries if held[entry.owner] * len(held) >= total]

    def _walk(self, owner: str | None, token_ids: Sequence[int]) -> tuple[list[_Node], int]:
        """The nodes on the way, the last one being where everything below shares most ids; and how many it shares."""
        node, matched = self._roots.get(owner), 0
        path = [] if node is None else [node]
        while node is not None and matched < len(token_ids):
            child = node.children.get(token_ids[matched])
            if child is None:
                break
            common = common_length(child.edge, token_ids[matched : matched + len(child.edge)])
            node, matched = child, matched + common
            path.append(node)
            if common < len(child.edge):
                break
        return path, matched

    def _insert(self, entry: _Entry) -> None:
        root = node = self._roots.setdefault(entry.owner, _Node(()))
        start, token_ids = 0, entry.token_ids
        while start < len(token_ids):
            self._replace(node, entry)
            child = node.children.get(token_ids[start])
            if child is None:
                child = node.children[token_ids[start]] = _Node(token_ids[start:])
            common = common_length(child.edge, token_ids[start : start + len(child.edge)])
            if common < len(child.edge):
                child = _split(node, child, common)
            node, start = child, start + common
        if any(other.state.can_fork(len(token_ids)) for other in node.entries() if other is not node.entry):
            entry.state.free()  # a longer one has it all
        else:
            self._replace(node, entry)
            node.entry = entry
            self._entries.add(entry)
        _compact(root, token_ids)

    def _replace(self, node: _Node, entry: _Entry) -> None:
        """Drop what a new entry at or below `node` makes useless."""
        old = node.entry
        if old is not None and entry.state.can_fork(len(old.token_ids)):
            self._entries.discard(old)
            old.state.free()
            node.entry = None

    def _remove(self, entry: _Entry) -> None:
        """Take an entry out of its tree and prune the branch that led only to it."""
        self._entries.discard(entry)
        root = self._roots[entry.owner]
        path, _ = self._walk(entry.owner, entry.token_ids)
        path[-1].entry = None
        for parent, node in zip(reversed(path[:-1]), reversed(path), strict=False):
            if node.entry is not None or node.children:
                break
            del parent.children[node.edge[0]]
        _compact(root, entry.token_ids)
        if not root.children:
            del self._roots[entry.owner]


def _shrinks(entry: _Entry) -> bool:
    """Cut an entry down to the part that others came back for; False when that saves nothing or is not possible."""
    state, before = entry.state, entry.state.num_bytes
    if not state.can_fork(entry.shared) or state.bytes_to_fork(entry.shared, entry.shared) >= before:
        return False
    try:
        state.shrink(entry.shared)
    except (RuntimeError, MemoryError):  # no memory for the smaller copy either
        return False
    entry.token_ids, entry.shared = entry.token_ids[: entry.shared], 0
    return True


def _compact(root: _Node, token_ids: Sequence[int]) -> None:
    """Join what lies in one line on the way along `token_ids`, so that the tree is no deeper than it branches."""
    node, start = root, 0
    while start < len(token_ids):
        child = node.children.get(token_ids[start])
        if child is None:
            return
        while child.entry is None and len(child.children) == 1:
            (only,) = child.children.values()
            child.edge += only.edge
            child.children, child.entry = only.children, only.entry
        node, start = child, start + len(child.edge)


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
