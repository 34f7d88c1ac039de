"""The line below the prompt."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from llm_local.terminal.prompt_toolbar import toolbar_line
from terminal.rich_parts import make_status

FULL = " org/model\\x1b[2J · cpu · context 1,000 used, 3,096 left · 12.5 tok/s · not stored · Alt+Enter sends"


def test_it_says_who_where_how_much_and_how_fast():
    status = make_status(context_used=1000, tokens_per_s=12.46, is_stored=False)
    assert toolbar_line(status, "Alt+Enter sends", 200) == FULL
    assert toolbar_line(make_status(), "h", 200) == " org/model\\x1b[2J · cpu · context 4,096 · h"
    assert toolbar_line(None, "h", 200) == " h"


@pytest.mark.parametrize("columns", [0, 1, 10, 20, 60, 90, len(FULL)])
def test_what_does_not_fit_is_left_out_from_the_end(columns):
    status = make_status(context_used=1000, tokens_per_s=12.46, is_stored=False)
    line = toolbar_line(status, "Alt+Enter sends", columns)
    assert cell_len(line) <= columns and FULL.startswith(line.rstrip("…").rstrip())
