"""What the model sees of a conversation: the last turns, whole, and no question that nobody answered."""

from __future__ import annotations

import pytest

from llm_local.chat.turns import Entry, is_unanswered, last_question, num_turns, seen
from llm_local.messages import Message, ToolCall


def turn(number, answer="yes", status="complete"):
    return [Entry(Message("user", f"q{number}")), Entry(Message("assistant", answer), status)]


def contents(entries, max_turns=50):
    return [one.content for one in seen(entries, max_turns).messages]


@pytest.mark.parametrize("count", [1, 49, 50, 51, 59, 60, 61, 75, 200])
def test_at_most_fifty_turns_at_least_forty_one_of_many_and_the_last_ones(count):
    entries = [one for number in range(count) for one in turn(number)]
    view = seen([Entry(Message("system", "S")), *entries])
    num_seen = sum(one.role == "user" for one in view.messages)
    assert num_seen == count if count <= 50 else 41 <= num_seen <= 50
    assert view.messages[0].content == "S"
    assert view.messages[1:] == tuple(one.message for one in entries[view.num_left_out :])
    assert view.num_left_out == 2 * (count - num_seen)


def test_the_beginning_stays_the_same_for_ten_turns():
    firsts = [
        contents([one for number in range(count) for one in turn(number)])[0] for count in range(51, 71)
    ]
    assert firsts == ["q10"] * 10 + ["q20"] * 10


def test_a_small_limit_leaves_the_last_turn():
    entries = [one for number in range(5) for one in turn(number)]
    assert contents(entries, 2) == ["q4", "yes"]


def test_questions_that_nothing_was_answered_to_are_not_shown_but_the_last():
    entries = [
        *turn(0),
        *turn(1, "", "interrupted"),
        Entry(Message("user", "q2")),
        Entry(Message("user", "q3")),
    ]
    assert contents(entries) == ["q0", "yes", "q3"]
    assert is_unanswered(entries[3])


def test_an_interrupted_part_and_calls_are_shown():
    call = ToolCall("1", "look", {})
    entries = [
        *turn(0, "par", "interrupted"),
        Entry(Message("user", "q1")),
        Entry(Message("assistant", "", tool_calls=(call,))),
        Entry(Message("tool", "seen", tool_call_id="1")),
        *turn(2),
    ]
    assert contents(entries) == ["q0", "par", "q1", "", "seen", "q2", "yes"]


def test_what_stands_before_the_first_question_is_a_turn_of_its_own():
    entries = [Entry(Message("system", "S")), Entry(Message("assistant", "Welcome.")), *turn(0)]
    assert contents(entries) == ["S", "Welcome.", "q0", "yes"]


def test_counting():
    entries = [*turn(0), *turn(1)]
    assert (num_turns(entries), last_question(entries), last_question([])) == (2, 2, None)
