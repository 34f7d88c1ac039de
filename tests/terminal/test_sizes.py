"""Numbers as people read them: three digits, and never 1000 of a unit."""

from __future__ import annotations

import pytest

from llm_local.terminal.sizes import format_bytes, format_count


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"), (7, "7"), (999, "999"), (1000, "1k"), (12_345, "12.3k"), (999_499, "999k"), (999_500, "1M"),
        (494_032_768, "494M"), (999_700_000, "1B"), (1_543_714_304, "1.54B"), (671_000_000_000, "671B"),
        (2_000_000_000_000, "2000B"),
    ],
)  # fmt: skip
def test_counts(count: int, shown: str) -> None:
    assert format_count(count) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (10**12, "1.00 TB"),
    ],
)
def test_bytes(count: int, shown: str) -> None:
    assert format_bytes(count) == shown
