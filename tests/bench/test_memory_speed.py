"""The short look at how fast memory is read."""

from __future__ import annotations

from llm_local.bench.memory_speed import memory_bytes_per_s


def test_it_is_a_speed() -> None:
    assert 1e8 < memory_bytes_per_s() < 1e13
