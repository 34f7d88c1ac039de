"""Reasoning first, then the constraint: what is allowed at each step."""

from __future__ import annotations

import numpy as np
import pytest

from llm_local.constraints.reasoning_gate import Reasoning, ReasoningGate, ids_beyond

SIZE, END = 256, 0
OPEN, CLOSE = tuple(b"<t>"), tuple(b"</t>")


class Fixed:
    """A mask that wants exactly these ids, in order, and then the end."""

    def __init__(self, *ids, floats=False):
        self.wanted = [*ids, END]
        self.accepted = []
        self._floats = floats

    def ready(self, seconds):
        return True

    def allowed(self):
        allowed = np.zeros(SIZE, dtype=np.bool_)
        allowed[self.wanted[0]] = True
        if not self._floats:
            return allowed
        shared = np.where(allowed, np.float32(0), np.float32("-inf"))
        shared.setflags(write=False)
        return shared

    def accept(self, token_id):
        assert token_id == self.wanted.pop(0)
        self.accepted.append(token_id)


def reasoning(**changes):
    given = {"piece": chr, "opens": "<t>", "closes": "</t>", "open_ids": OPEN, "close_ids": CLOSE}
    return Reasoning(**(given | changes))


def allowed(gate):
    """The ids that may come next."""
    values = np.asarray(gate.allowed())
    assert values.shape == (SIZE,)
    return set(np.flatnonzero(values if values.dtype == np.bool_ else values == 0).tolist())


def feed(gate, text):
    for byte in text.encode():
        assert byte in allowed(gate), chr(byte)
        gate.accept(byte)


EVERYTHING = set(range(SIZE))


@pytest.mark.parametrize("floats", [False, True])
def test_the_constraint_begins_behind_the_reasoning(floats):
    inner = Fixed(ord("x"), ord("y"), floats=floats)
    gate = ReasoningGate(inner, SIZE, [END], reasoning=reasoning())
    assert allowed(gate) == {ord("x"), ord("<")}
    feed(gate, "<")
    assert allowed(gate) == {ord("t")}, "a tag that is begun is finished"
    feed(gate, "t>")
    assert allowed(gate) == EVERYTHING - {END}, "the reply cannot end without its answer"
    feed(gate, "anything </ x y </t>")
    assert allowed(gate) == {ord("x")}
    feed(gate, "xy")
    assert allowed(gate) == {END}
    assert inner.accepted == [ord("x"), ord("y")]


def test_a_model_need_not_reason():
    inner = Fixed(ord("x"))
    gate = ReasoningGate(inner, SIZE, [END], reasoning=reasoning())
    feed(gate, "x")
    assert allowed(gate) == {END}


def test_a_tag_that_the_prompt_opened():
    gate = ReasoningGate(Fixed(ord("x")), SIZE, [END], reasoning=reasoning(opened=True))
    assert allowed(gate) == EVERYTHING - {END}
    feed(gate, "hm</t>")
    assert allowed(gate) == {ord("x")}


@pytest.mark.parametrize("limit", [0, 1, 5])
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_the_budget_closes_the_reasoning(limit, opened, inner):
    """After exactly so many tokens the closing tag is all there is, then the answer."""
    mask = Fixed(ord("x")) if inner else None
    gate = ReasoningGate(mask, SIZE, [END], reasoning=reasoning(opened=opened, max_tokens=limit))
    feed(gate, "" if opened else "<t>")
    for _ in range(limit):
        assert len(allowed(gate)) >= SIZE - 1
        gate.accept(ord("a"))
    for token_id in CLOSE:
        assert allowed(gate) == {token_id}
        gate.accept(token_id)
    assert allowed(gate) == ({ord("x")} if inner else EVERYTHING)


def test_reasoning_that_closes_by_itself_is_not_closed_again():
    gate = ReasoningGate(None, SIZE, [END], reasoning=reasoning(max_tokens=20))
    feed(gate, "<t>short</t>" + "a long answer that goes on for more tokens than the budget")
    assert allowed(gate) == EVERYTHING


def test_the_budget_holds_for_all_reasoning_of_a_model_that_goes_back_to_it():
    gate = ReasoningGate(None, SIZE, [END], reasoning=reasoning(again=True, max_tokens=6))
    feed(gate, "<t>a</t>" + "answer" + "<t>")
    assert allowed(gate) == EVERYTHING, "five of six"
    gate.accept(ord("b"))
    for token_id in CLOSE:
        assert allowed(gate) == {token_id}
        gate.accept(token_id)
    feed(gate, "answer<t>")
    assert allowed(gate) == {CLOSE[0]}, "nothing is left"
    once = ReasoningGate(None, SIZE, [END], reasoning=reasoning(max_tokens=6))
    feed(once, "<t>a</t>answer<t> that speaks of a tag")
    assert allowed(once) == EVERYTHING


def test_without_a_constraint_the_reply_may_end_anywhere():
    """A budget alone forbids nothing else."""
    gate = ReasoningGate(None, SIZE, [END], reasoning=reasoning(opened=True, max_tokens=5))
    assert END in allowed(gate)
    gate = ReasoningGate(None, SIZE, [END], reasoning=reasoning(max_tokens=2))
    feed(gate, " <t")
    feed(gate, "x and no tag at all")
    assert allowed(gate) == EVERYTHING


def test_what_begins_the_answer_comes_before_the_constraint():
    inner = Fixed(ord("x"))
    gate = ReasoningGate(inner, SIZE, [END], reasoning=reasoning(), lead_ids=[7, 8])
    assert allowed(gate) == {7, ord("<")}
    feed(gate, "<t>a</t>")
    for token_id in (7, 8, ord("x")):
        assert allowed(gate) == {token_id}
        gate.accept(token_id)
    assert allowed(gate) == {END}
    alone = ReasoningGate(Fixed(ord("x")), SIZE, [END], lead_ids=[7])
    assert allowed(alone) == {7}
    alone.accept(7)
    assert allowed(alone) == {ord("x")}


def test_a_model_that_always_reasons_is_made_to():
    gate = ReasoningGate(Fixed(ord("x")), SIZE, [END], reasoning=reasoning(always=True), lead_ids=[9])
    for token_id in OPEN:
        assert allowed(gate) == {token_id}
        gate.accept(token_id)
    feed(gate, "a</t>")
    assert allowed(gate) == {9}


def test_end_ids_outside_of_the_logits_are_no_concern():
    gate = ReasoningGate(Fixed(1), SIZE, [END, SIZE + 5], reasoning=reasoning(opened=True))
    assert allowed(gate) == EVERYTHING - {END}


def test_no_token_ends_the_reasoning_and_begins_the_answer():
    """A token such as `>{` would put text before the answer that the constraint has never seen."""
    merged = {1: ">{", 2: "t> ", 3: "</t>x", 4: "a</t>\n\n", 5: "></", 6: "</t>", 7: "t>"}
    pieces = {**{token_id: chr(token_id) for token_id in range(32, SIZE)}, **merged}
    beyond = ids_beyond("</t>", pieces.items())
    assert beyond == {0: [3, 4], 2: [2], 3: [1, 5]}

    def gate(inner):
        one = reasoning(opened=True, piece=lambda token_id: pieces.get(token_id, ""), beyond=beyond)
        return ReasoningGate(inner, SIZE, [END], reasoning=one)

    kept = gate(Fixed(ord("x")))
    assert allowed(kept) == EVERYTHING - {END, 3, 4}
    feed(kept, "a </")
    assert allowed(kept) == EVERYTHING - {END, 2, 3, 4}
    feed(kept, "t")
    assert allowed(kept) == EVERYTHING - {END, 1, 3, 4, 5}
    feed(kept, ">")
    assert allowed(kept) == {ord("x")}
    free = gate(None)
    feed(free, "a </t")
    assert allowed(free) == EVERYTHING, "an answer without a constraint may begin anywhere"


def test_a_token_may_open_reasoning_and_begin_to_close_it():
    """`></` is one token of many models: what follows the opening tag counts for the closing one."""
    pieces = {1: "></", **{ord(letter): letter for letter in "<t>"}}
    gate = ReasoningGate(
        None, SIZE, [END], reasoning=reasoning(piece=lambda one: pieces.get(one, "a"), max_tokens=3)
    )
    for token_id in (ord("<"), ord("t"), 1, ord("t"), ord(">")):
        assert token_id in allowed(gate)
        gate.accept(token_id)
    for _ in range(10):
        assert allowed(gate) == EVERYTHING, "the reasoning is closed, and not closed again"
        gate.accept(ord("a"))
