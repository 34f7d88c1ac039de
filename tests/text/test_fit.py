"""The window's arithmetic, on both sides of every boundary."""

from __future__ import annotations

import itertools

import pytest

from llm_local.errors import ContextLengthExceeded
from llm_local.text.fit import fit

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
