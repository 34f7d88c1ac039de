"""The window's arithmetic, on both sides of every boundary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_local.errors import ContextLengthExceeded
from llm_local.messages import Message
from llm_local.text.fit import fit, trim_in_steps, trim_oldest

FITS = [
    # prompt, cap, window, explicit, granted
    (10, 90, 100, True, 90),  # to the last token
    (10, 1, 100, True, 1),
    (99, 1, 100, True, 1),
    (10, 90, 100, False, 90),
    (10, 500, 100, False, 90),  # a default shrinks
    (75, 500, 100, False, 25),  # to the least reply, a quarter of a small window
    (99, 1, 100, False, 1),  # a default below the least reply needs only itself
    (98, 2, 100, False, 2),
    (10, None, 100, False, 90),  # no cap is the rest of the window
    (10, None, 100, True, 90),
    (75, None, 100, False, 25),
    (0, None, 1, False, 1),  # the smallest window there is
    (0, 1, 1, True, 1),
    (0, 5, 1, False, 1),
    (4064, None, 4096, False, 32),  # the least reply of a large window is 32
    (4064, 512, 4096, False, 32),
]
REFUSED = [
    # prompt, cap, window, explicit, reserve
    (11, 90, 100, True, 90),  # a promise is kept whole or refused
    (10, 91, 100, True, 91),
    (100, 1, 100, True, 1),
    (101, 1, 100, True, 1),
    (76, 500, 100, False, 25),
    (100, 1, 100, False, 1),
    (99, 2, 100, False, 2),
    (76, None, 100, False, 25),
    (76, None, 100, True, 25),
    (1, None, 1, False, 1),
    (1, 1, 1, True, 1),
    (4065, None, 4096, False, 32),
    (4065, 512, 4096, False, 32),
    (5000, 512, 4096, False, 32),
]


@pytest.mark.parametrize(("prompt", "cap", "window", "explicit", "granted"), FITS)
def test_what_fits(prompt, cap, window, explicit, granted):
    """An explicit cap is granted whole; a default one, or none, takes what the window leaves."""
    assert fit(prompt, cap, window, explicit=explicit) == granted


@pytest.mark.parametrize(("prompt", "cap", "window", "explicit", "reserve"), REFUSED)
def test_what_does_not_fit_is_refused_with_the_three_numbers(prompt, cap, window, explicit, reserve):
    """Prompt, reserve and window are in the error and in its message; nothing is cut."""
    with pytest.raises(ContextLengthExceeded) as caught:
        fit(prompt, cap, window, explicit=explicit)
    error = caught.value
    assert (error.prompt_tokens, error.reserve, error.context_length) == (prompt, reserve, window)
    assert all(str(number) in error.message for number in (prompt, reserve, window))


def test_what_is_granted_always_fits():
    """Over all small cases: at least one token, never past the window, never more than asked for."""
    for prompt, cap, window, explicit in itertools.product(
        range(12), [None, 1, 2, 5, 40], range(1, 12), [True, False]
    ):
        try:
            granted = fit(prompt, cap, window, explicit=explicit)
        except ContextLengthExceeded as error:
            assert error.reserve > window - prompt
            continue
        assert 1 <= granted <= window - prompt
        assert cap is None or granted <= cap
        assert not (explicit and cap) or granted == cap


def conversation(shape):
    """Messages from letters: s(ystem), u(ser), a(ssistant), t(ool); each content is its place."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [Message(roles[letter], str(place)) for place, letter in enumerate(shape)]


def kept(shape, room):
    result = trim_oldest(conversation(shape), lambda part: len(part) <= room)
    return None if result is None else "".join(shape[int(message.content)] for message in result)


@pytest.mark.parametrize(
    ("shape", "room", "expected"),
    [
        ("suauau", 6, "suauau"),
        ("suauau", 5, "suau"),  # a turn goes whole
        ("suauau", 4, "suau"),
        ("suauau", 3, "su"),
        ("suauau", 1, None),  # not even the last turn fits
        ("uatatauau", 5, "uau"),  # tool calls and results go with the turn they belong to
        ("ssuatau", 6, "ssu"),  # all system messages at the beginning stay
        ("auau", 3, "uau"),  # a greeting before the first question goes alone
        ("uauat", 4, "uat"),  # the last turn stays with what answers it so far
        ("su", 2, "su"),
    ],
)
def test_whole_turns_go_oldest_first(shape, room, expected):
    assert kept(shape, room) == expected


def test_as_little_as_possible_is_left_out():
    """Against every other choice of a beginning, for all rooms."""
    shape = "s" + "ua" * 20 + "uatau" + "u"
    for room in range(1, len(shape) + 1):
        found = kept(shape, room)
        starts = [1, *(n for n, letter in enumerate(shape) if letter == "u" and n > 1)]
        fitting = ["s" + shape[start:] for start in starts if len(shape) - start + 1 <= room]
        assert found == (max(fitting, key=len) if fitting else None)


def trimmed_to(sizes: Sequence[int], window: int, reserve: int) -> tuple[int, ...] | None:
    """The sizes of what is kept of turns of one message each; the conversation is known not to fit."""
    messages = [Message("user", str(size)) for size in sizes]
    asked: list[int] = []

    def count(part: Sequence[Message]) -> int:
        asked.append(len(part))
        return sum(int(message.content) for message in part)

    too_long = ContextLengthExceeded(prompt_tokens=sum(sizes), reserve=reserve, context_length=window)
    kept = trim_in_steps(messages, count, too_long)
    assert len(sizes) not in asked, "to count all of it again takes long"
    return None if kept is None else tuple(int(message.content) for message in kept)


def test_what_is_kept_begins_with_the_same_turn_for_some_time() -> None:
    """A conversation that grows by a fiftieth of the window per turn is cut anew every twelve turns or so."""
    window, reserve, turn = 1000, 30, 20
    begins = []
    for num_turns in range(49, 249):
        kept = trimmed_to([turn] * num_turns, window, reserve)
        assert kept is not None
        assert window - reserve - window // 4 - turn < sum(kept) <= window - reserve
        begins.append(num_turns - len(kept))
    assert begins == sorted(begins)
    assert len(set(begins)) <= 200 * turn // (window // 4) + 1


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=30),
    st.integers(20, 1000),
    st.integers(1, 19),
)
def test_it_fits_whenever_the_last_turn_does_and_little_more_than_a_quarter_is_given_up(
    sizes: list[int], window: int, reserve: int
) -> None:
    room = window - reserve
    if sum(sizes) <= room:
        return
    kept = trimmed_to(sizes, window, reserve)
    if sizes[-1] > room:
        assert kept is None
        return
    assert kept is not None and kept == tuple(sizes[-len(kept) :])
    assert sum(kept) <= room
    one_more = sizes[-len(kept) - 1]
    assert sum(kept) + one_more > room - max(1, window // 4)
