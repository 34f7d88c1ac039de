"""Whatever way an answer is cut into pieces, the terminal holds it once, whole, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_local.terminal.blocks import MarkdownStream, markdown_rows
from llm_local.terminal.code_colors import CodeColors
from llm_local.terminal.live_tail import LiveTail
from llm_local.terminal.markdown_leaves import parse_leaves
from llm_local.terminal.markdown_rows import MIN_WIDTH, RowMaker
from llm_local.terminal.sanitize import TerminalFilter
from terminal.emulator import Emulator

# Beginnings of everything, whole or broken, so that blocks change their type while they grow.
FRAGMENTS = (
    *("# Head\n", "#", "text to *wrap* somewhere, and more of it so that it does\n", "word ", "\n", "\n\n"),
    *("**open\n", "shut** x\n", "**", "*", "_b\n", "`", "~~", "\\\n", "[open\n", "[l](http://x)\n", "![i](u) "),
    *("- item\n", "  - nested\n", "- ", "* star\n", "-", "+ ", "1. one\n", "1.", "2) two\n", "> quote\n", ">", "   "),
    *("```python\n", "def f():\n", "    x = '''a\n", "'''\n", "```\n", "```", "~~~\n", "- ```js\n", "  /* c\n"),
    *("| a | b |\n", "|---|--:|\n", "| 1 | 2 |\n", "| 1 | 2 | 3 |\n", "a|b\n", "-|-\n", "|", "---\n", "===\n"),
    *("    indented\n", "\t", "漢字かな混じり文のなか" * 4 + "\n", "👩‍👩‍👧 ❤️ 🇩🇪\n", "x" * 90 + "\n", "[f]: http://u\n"),
    *("&#27;[2J", "\x1b[31m", "\u202e", "\r\n", "\r", "\x9b", "<div>\n", "&amp;", "\x00", "\ud800"),
)  # fmt: skip
SOURCES = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)
SIZES = st.tuples(st.sampled_from((1, 5, 20, 33, 80)), st.sampled_from((1, 2, 5, 24)))
THOROUGH = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def pieces(source: str, lengths: Sequence[int]) -> Iterator[str]:
    position, number = 0, 0
    while position < len(source):
        length = lengths[number % len(lengths)]
        yield source[position : position + length]
        position, number = position + length, number + 1


def streamed(source: str, lengths: Sequence[int], columns: int, lines: int) -> Emulator:
    emulator = Emulator(columns, lines)
    stream, tail = MarkdownStream(RowMaker("truecolor")), LiveTail(emulator.write, emulator.size)
    for piece in pieces(source, lengths):
        stream.feed(piece)
        rows = stream.take(columns)
        tail.paint(rows.done, rows.tail)
    tail.paint(stream.finish(columns), [])
    tail.clear()
    return emulator


def drawn_at_once(source: str, columns: int, lines: int) -> Emulator:
    """Without anything that streams: all leaves of the whole, one after the other."""
    shown = TerminalFilter()
    maker, width, rows = RowMaker("truecolor"), max(columns, MIN_WIDTH), []
    for leaf in parse_leaves(shown.feed(source) + shown.finish()):
        if leaf.apart is not None and rows:
            rows.append(maker.blank(leaf, width))
        if leaf.kind == "code":
            lines_of_code = leaf.text.split("\n")
            colors = CodeColors(leaf.language)
            colored = [colors.add(line) for line in lines_of_code[: None if lines_of_code[-1] else -1]]
            rows += maker.code_rows(leaf, colored, width, is_start=True)
        else:
            rows += maker.rows(leaf, width)
    emulator = Emulator(columns, lines)
    emulator.write("".join(f"{row}\r\n" for row in rows))
    return emulator


@THOROUGH
@given(SOURCES, st.lists(st.integers(1, 60), min_size=1, max_size=8), SIZES)
def test_what_is_left_is_the_whole_drawn_at_once(source, lengths, size):
    assert streamed(source, lengths, *size).rows() == drawn_at_once(source, *size).rows()


@THOROUGH
@given(SOURCES, st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_rows_that_are_done_do_not_depend_on_the_pieces(source, lengths):
    stream, rows = MarkdownStream(RowMaker("truecolor")), []
    for piece in pieces(source, lengths):
        stream.feed(piece)
        rows += stream.take(40).done
    assert rows + stream.finish(40) == markdown_rows(source, 40, RowMaker("truecolor"))


@THOROUGH
@given(SOURCES, st.integers(-1, 90))
def test_no_row_but_of_code_is_too_wide_and_no_sequence_is_foreign(source, width):
    ours = re.compile(r"\x1b\[[0-9;]*m|\x1b\[K")
    for row in markdown_rows(source, width, RowMaker("256")):
        plain = ours.sub("", row)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", plain)


@pytest.mark.parametrize(
    ("before", "columns", "lines"),
    [("", 80, 24), ("```python\n", 80, 24), ("```python\n", 3, 2), ("- ```\n", 20, 6), ("> ", 80, 24)],
)
def test_each_of_300_lines_is_there_once_whatever_they_are(before, columns, lines):
    indent = "  " if before.startswith("-") else before if before.startswith(">") else ""
    source = before.removeprefix("> ") + "".join(f"{indent}w{number:03}w\n" for number in range(300))
    text = "".join(streamed(source, [7, 1, 30], columns, lines).rows())
    found = re.findall(r"w\d{3}w", re.sub(r"[^w\d]", "", text))
    assert found == [f"w{number:03}w" for number in range(300)]


def test_lines_of_code_and_of_text_and_items_are_done_while_they_come():
    for begin, end in (("```python\n", "\n"), ("", "\n"), ("", "  \n")):
        stream, num_done = MarkdownStream(RowMaker(None)), []
        stream.feed(begin)
        for number in range(20):
            stream.feed(f"- line {number}{end}")
            num_done.append(len(stream.take(80).done))
        assert max(num_done[2:]) == min(num_done[2:]) == 1


def test_what_is_drawn_does_not_grow_with_the_answer():
    """300 lines cost what 300 lines cost: nothing that is done is ever written again."""
    source = "".join(f"Paragraph {number} with some words.\n\n" for number in range(150))
    emulator = streamed(source, [9], 80, 24)
    assert emulator.num_chars < 12 * len(source)


def test_a_tail_higher_than_the_screen_shows_its_end():
    emulator = Emulator(40, 5)
    stream, tail = MarkdownStream(RowMaker(None)), LiveTail(emulator.write, emulator.size)
    stream.feed("long " * 100 + "END")
    rows = stream.take(40)
    tail.paint(rows.done, rows.tail)
    assert len(rows.tail) > 5 and len(emulator.rows()) == 4 and emulator.rows()[-1].endswith("END")


def test_the_end_of_a_fence_is_not_seen_as_code_while_it_comes():
    stream = MarkdownStream(RowMaker(None))
    stream.feed("```\na\n``")
    assert stream.take(40).done == ["a"] and stream.take(40).tail == []


def test_what_would_be_cut_off_by_the_rules_of_tables_is_shown():
    rows = markdown_rows("| op | is |\n|---|---|\n| `a || b` | or |\n", 60, RowMaker(None))
    assert any("a || b" in row for row in rows)


def test_a_table_without_room_is_read_line_by_line():
    source = "|Name|Much|Paid|\n|---|---|---|\n|apples|seven|no|\n|pears|two|yes|\n"
    rows = markdown_rows(source, 15, RowMaker(None))
    assert rows == [
        *("Name: apples", "Much: seven", "Paid: no"),
        "─" * MIN_WIDTH,
        *("Name: pears", "Much: two", "Paid: yes"),
    ]


@pytest.mark.parametrize("mark", ["> ", ">", "- ", "1. ", "> - ", "*"])
@pytest.mark.parametrize("depth", [30, 100, 3000])
def test_no_nesting_is_too_deep_to_be_shown(mark, depth):
    rows = "".join(markdown_rows(f"before\n\n{mark * depth}deep\n\nafter", 60, RowMaker(None)))
    assert rows.startswith("before") and "deep" in rows and rows.endswith("after")


def test_a_cell_of_a_table_can_have_lines():
    rows = markdown_rows("|a|\n|-|\n|one<br>two<BR/>`three`|\n", 60, RowMaker(None))
    assert [row.strip("│ ") for row in rows[3:6]] == ["one", "two", "three"]


def test_links_show_where_they_lead_and_images_are_words():
    source = "[here](https://a.example/x) <https://b.example> ![a cat](https://c.example/cat.png)"
    [row] = markdown_rows(source, 200, RowMaker("256"))
    assert "]8;" not in row
    plain = re.sub(r"\x1b\[[0-9;]*m", "", row)
    assert plain == (
        "here (https://a.example/x) https://b.example [image: a cat] (https://c.example/cat.png)"
    )


def test_a_heading_is_bold_and_code_of_any_language_lies_on_its_ground():
    heading, _, _, _, code = markdown_rows("# Head\n```nosuch\n```\n```\nx\n```\n", 40, RowMaker("256"))
    assert heading == "\x1b[1;4;95mHead\x1b[0m"
    ground = r"\x1b\[38;[0-9;]*;48;[0-9;]*m"  # a color on a color
    assert re.fullmatch(rf"{ground}\x1b\[K\x1b\[0m{ground}x\x1b\[0m", code)
