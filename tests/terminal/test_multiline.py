"""Lines to inputs: what three quotation marks hold together."""

from __future__ import annotations

import pytest

from llm_local.terminal.multiline import InputAssembler


def inputs(*lines: str) -> list[str]:
    assembler = InputAssembler()
    whole = [text for line in lines if (text := assembler.feed(line)) is not None]
    rest = assembler.finish()
    return whole + ([] if rest is None else [f"unfinished: {rest}"])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Hello", "", "again"], ["Hello", "", "again"]),
        (['"""one', 'two"""', "three"], ["one\ntwo", "three"]),
        (['"""', "  one", "", "two", '"""'], ["  one\n\ntwo"]),
        (['"""in a line"""'], ["in a line"]),
        (['"""""", '.strip(", ")], [""]),
        (['  """one', 'two"""  '], ["one\ntwo"]),
        (['/system """You are', 'brief."""'], ["/system You are\nbrief."]),
        (['/system """', "You are", '"""'], ["/system You are"]),
        (['He said """no""" to me'], ['He said """no""" to me']),
        (['"""a "quoted" word', "and ''' too", '"""'], ["a \"quoted\" word\nand ''' too"]),
        (['"""one', "two"], ["unfinished: one\ntwo"]),
        (['"""'], ["unfinished: "]),
    ],
)
def test_lines_become_inputs(lines: list[str], expected: list[str]) -> None:
    assert inputs(*lines) == expected


def test_what_was_dropped_is_no_part_of_the_next_input() -> None:
    assembler = InputAssembler()
    assert assembler.feed('/x """one') is None and assembler.is_open
    assembler.drop()
    assert not assembler.is_open and assembler.finish() is None
    assert assembler.feed("two") == "two"
