"""Limits of callers: a window that moves with the monotonic clock, and is forgotten when nobody asks any more."""

from __future__ import annotations

import time

import pytest

from fakes import FakeClock
from llm_local.api.rate_limit import RateLimited, RateLimits


def test_the_window_moves_and_a_refusal_does_not_count() -> None:
    clock = FakeClock()
    limits = RateLimits("2/minute", clock)
    assert limits.hit("a").remaining == 1
    clock.advance(20)
    last = limits.hit("a")
    assert (last.remaining, last.next_s, last.reset_s) == (0, 40, 60)
    for _ in range(3):
        with pytest.raises(RateLimited) as raised:
            limits.hit("a")
        assert raised.value.retry_after_s == 40
    clock.advance(40)
    assert limits.hit("a").remaining == 0, "the first one is a minute old"
    with pytest.raises(RateLimited):
        limits.hit("a")
    assert limits.hit("b").remaining == 1, "callers do not share"


def test_no_change_of_the_date_opens_or_closes_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = RateLimits("1/minute")
    limits.hit("a")
    for moved_s in (86_400.0, -86_400.0):
        now = time.time() + moved_s
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with pytest.raises(RateLimited) as raised:
            limits.hit("a")
        assert 1 <= raised.value.retry_after_s <= 60


def test_who_has_asked_nothing_for_a_window_is_forgotten() -> None:
    clock = FakeClock()
    limits = RateLimits("5/minute", clock)
    for number in range(1000):
        limits.hit(f"10.0.{number}")
        clock.advance(1)
    assert len(limits._windows) <= 61


def test_without_a_limit_nothing_is_counted() -> None:
    assert RateLimits(None).hit("a") is None
