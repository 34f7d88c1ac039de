"""The order of a line is the one that is written down, whatever happens."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_local.runtime.order import LOWEST_PRIORITY, TOP_PRIORITY, WrittenOrder

AGING_S = 10.0


@dataclass
class PlainOrder:
    """The written order said once more, without a thought for speed: look at everybody, every time."""

    waiting: list[tuple[int, str, int]] = field(default_factory=list)  # number, owner, priority
    running: list[str] = field(default_factory=list)
    last_turns: dict[str, int] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)  # when a number became the foremost of its kind
    numbers: int = 0
    turns: int = 0

    def join(self, owner, priority, now):
        self.numbers += 1
        self.waiting.append((self.numbers, owner, priority))
        self._look(now)
        return self.numbers

    def take_next(self, now):
        if not self.waiting:
            return None
        number, owner, _ = min((one for one in self.waiting if one[0] in self.since), key=self._rank(now))
        self.turns += 1
        self.last_turns[owner] = self.turns
        self.running.append(owner)
        self._drop(number, now)
        return number

    def leave(self, number, now):
        self._drop(number, now)

    def finish(self, owner, now):
        self.running.remove(owner)
        self._look(now)

    def _drop(self, number, now):
        self.waiting = [one for one in self.waiting if one[0] != number]
        self.since.pop(number, None)
        self._look(now)

    def _look(self, now):
        for number, owner, priority in self.waiting:
            ahead = [one for one in self.waiting if one[1:] == (owner, priority) and one[0] < number]
            if not ahead:
                self.since.setdefault(number, now)
        present = {owner for _, owner, _ in self.waiting} | set(self.running)
        self.last_turns = {owner: turn for owner, turn in self.last_turns.items() if owner in present}

    def _rank(self, now):
        def rank(one):
            number, owner, priority = one
            level = min(TOP_PRIORITY, priority + int((now - self.since[number]) / AGING_S))
            return -level, self.running.count(owner), self.last_turns.get(owner, 0), number

        return rank


ACTIONS = st.one_of(
    st.tuples(st.just("join"), st.sampled_from("abc"), st.integers(LOWEST_PRIORITY, TOP_PRIORITY)),
    st.tuples(st.just("join"), st.sampled_from("abc"), st.sampled_from([0, 0, 1])),
    st.tuples(st.sampled_from(["take", "take", "finish", "leave"]), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("pass"), st.sampled_from([1, 4, 10, 35, 250]), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_the_order_is_the_written_one(actions) -> None:
    order, plain = WrittenOrder(AGING_S), PlainOrder()
    owners: dict[int, str] = {}
    now, running = 100.0, []
    for what, one, other in actions:
        if what == "join":
            number = order.join(one, other, now)
            assert number == plain.join(one, other, now)
            owners[number] = one
        elif what == "take":
            taken = order.take_next(now)
            assert taken == plain.take_next(now)
            running += [taken] if taken is not None else []
        elif what == "leave" and plain.waiting:
            number = plain.waiting[one % len(plain.waiting)][0]
            order.leave(number, now)
            plain.leave(number, now)
        elif what == "finish" and running:
            owner = owners[running.pop(one % len(running))]
            order.finish(owner)
            plain.finish(owner, now)
        elif what == "pass":
            now += one
        assert len(order) == len(plain.waiting)
        assert order.num_owners == len({owner for _, owner, _ in plain.waiting} | set(plain.running))
        standing = order.standing(now)
        later = copy.deepcopy(order)
        assert standing == [later.take_next(now) for _ in range(len(order))]


def test_one_owner_and_one_priority_is_first_come_first_served() -> None:
    order = WrittenOrder(AGING_S)
    numbers = [order.join("me", 0, float(moment)) for moment in range(50)]
    assert [order.take_next(60.0) for _ in numbers] == numbers
    assert order.take_next(60.0) is None


def test_a_higher_priority_goes_first_until_the_passed_over_one_has_risen() -> None:
    order = WrittenOrder(AGING_S)
    low = order.join("me", 0, 0.0)
    first = order.join("me", 2, 15.0)
    assert order.standing(15.0) == [first, low]  # 1 against 2
    assert order.take_next(15.0) == first
    order.join("me", 2, 20.0)
    assert order.take_next(20.0) == low  # 2 against 2, and it came first


def test_nobody_starves_behind_higher_priorities_that_never_end() -> None:
    order = WrittenOrder(AGING_S)
    low = order.join("low", LOWEST_PRIORITY, 0.0)
    now, taken = 0.0, None
    while taken != low:
        order.join("high", TOP_PRIORITY, now)
        taken = order.take_next(now)
        order.finish("low" if taken == low else "high")
        now += 1.0
        assert now <= (TOP_PRIORITY - LOWEST_PRIORITY) * AGING_S + 3


def test_a_flood_of_old_requests_does_not_rise_above_everybody() -> None:
    order = WrittenOrder(AGING_S)
    flood = {order.join("flood", 0, 0.0) for _ in range(100)}
    now, passed_over = 25.0, 0  # the foremost of the flood has risen, the others have not
    for _ in range(10):
        order.join("fresh", 0, now)
        taken = [order.take_next(now), order.take_next(now)]
        order.finish("flood")
        order.finish("fresh")
        passed_over += len(flood.intersection(taken)) == 2
    assert passed_over == 0


def test_owners_share_what_becomes_free() -> None:
    order = WrittenOrder(AGING_S)
    for _ in range(20):
        order.join("a", 0, 0.0)
    running = [order.take_next(0.0) for _ in range(4)]
    assert running == [1, 2, 3, 4]
    others = [order.join("b", 0, 1.0) for _ in range(5)]
    for _ in range(3):
        order.finish("a")
    # one of each runs after the first; then it is the turn of who was let in longest ago
    assert [order.take_next(1.0) for _ in range(4)] == [others[0], 5, others[1], 6]
