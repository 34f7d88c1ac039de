"""Rows with bars for what goes on."""

from __future__ import annotations

from llm_local.events import Progress
from llm_local.terminal.busy_rows import BusyRows


def rows(*events: Progress) -> list[str]:
    busy = BusyRows()
    for event in events:
        busy.add(event)
    return [row.plain for row in busy.rows()]


def test_what_is_complete_or_over_is_not_shown():
    busy = BusyRows()
    assert busy.add(Progress("downloading", 1, 4, "a")) and busy.add(Progress("downloading", 1, 4, "b"))
    assert busy.add(Progress("downloading", 4, 4, "a")) and len(busy.rows()) == 1
    assert busy.add(Progress("loading", 1, 4, "b")) and [row.plain[:7] for row in busy.rows()] == ["loading"]
    assert not busy.add(Progress("loading", 4, 4, "b")) and busy.rows() == []


def test_each_stage_has_its_unit():
    assert rows(Progress("prefill", 512, 2048)) == [
        f"reading the prompt  {'━' * 24}  25%  512 of 2,048 tokens"
    ]
    assert rows(Progress("loading", 1_000_000, 4_000_000, "x\x1b[2J"))[0].endswith(
        "25%  1.00 MB of 4.00 MB  x\\x1b[2J"
    )
    assert rows(Progress("queued", 2, 5)) == ["waiting  place 2 of 5"]
    assert rows(Progress("downloading", 2_000_000, None, "f")) == ["downloading  2.00 MB  f"]


def test_only_the_last_few_are_shown():
    assert len(rows(*(Progress("downloading", 1, 2, str(number)) for number in range(9)))) == 4
