"""What a chat says, on the screen of a terminal."""

from __future__ import annotations

import time

import pytest

from llm_local.events import Delta, Finish, Progress, Timings, ToolResult, ToolStarted, Usage
from llm_local.messages import ToolCall
from terminal.rich_parts import completion, make_status, make_view

EVIL = "x\x1b]52;c;AAAA\x07\x1b[2J\x9b\u202e\r"
SHOWN = "x\\x1b]52;c;AAAA\\x07\\x1b[2J\\x9b\\u202e"


def answer(one, *events, reason="stop", verbose=False):
    one.view.begin_reply()
    for event in events:
        one.view.show(event)
    one.view.show(Finish(reason, Usage(), Timings()))
    one.view.end_reply(completion(reason), verbose=verbose)


def test_an_answer_is_drawn_and_the_statistics_only_on_request():
    one = make_view()
    answer(one, Delta("content", "**bold** "), Delta("content", "and more\n\n- item"))
    assert one.rows() == ["", "bold and more", "", "• item"]
    answer(one, Delta("content", "again"), verbose=True)
    assert one.rows()[6:8] == ["again", "11 tokens in 2.00 s (5.0 tok/s); prompt 20 tokens, 5 of them"]
    assert not one.modes.is_silent and not one.emulator.screen.cursor.hidden


def test_typing_is_hidden_while_an_answer_comes():
    one = make_view()
    one.view.begin_reply()
    one.view.show(Delta("content", "word"))
    assert one.modes.is_silent and one.emulator.screen.cursor.hidden
    one.view.end_reply(None)
    assert not one.modes.is_silent and not one.emulator.screen.cursor.hidden


def test_an_answer_that_is_stopped_or_cut_says_so():
    one = make_view()
    answer(one, Delta("content", "half"), reason="cancelled")
    answer(one, Delta("content", "half"), reason="length")
    text = "\n".join(one.rows())
    assert "[stopped here; what came is kept]" in text and "[cut here after 11 tokens" in text


def test_reasoning_is_shown_apart_or_only_counted():
    thoughts = [Delta("reasoning", "so *I*\nthink", (1, 2)), Delta("content", "Yes.", (3,))]
    shown = make_view(show_thinking=True)
    answer(shown, *thoughts)
    assert shown.rows() == ["", "so *I*", "think", "", "Yes."]
    assert shown.emulator.screen.buffer[1][0].italics and not shown.emulator.screen.buffer[4][0].italics
    hidden = make_view()
    answer(hidden, *thoughts)
    assert hidden.rows() == ["", "Yes."]


def test_hidden_reasoning_shows_that_something_goes_on():
    one = make_view()
    one.view.begin_reply()
    one.view.show(Delta("reasoning", "hm", (1, 2, 3)))
    deadline = time.monotonic() + 20
    while "thinking: 3 tokens" not in "\n".join(one.rows()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    one.view.show(Delta("content", "done", (4,)))
    one.view.end_reply(completion())
    assert one.rows() == ["", "done"]


def test_progress_is_a_bar_that_moves_and_goes_away():
    one = make_view(columns=80)
    one.view.progress(Progress("prefill", 512, 1024))
    deadline = time.monotonic() + 20
    while "512 of 1,024 tokens" not in "\n".join(one.rows()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    [row] = one.rows()
    assert row[2:] == f"reading the prompt  {'━' * 24}  50%  512 of 1,024 tokens" and one.modes.is_silent
    one.view.progress(Progress("prefill", 1024, 1024))
    assert one.rows() == [] and not one.modes.is_silent


def test_tools_are_told_between_the_replies():
    call = ToolCall("1", f"clock{EVIL}", {})
    one = make_view(columns=200)
    one.view.begin_reply()
    one.view.show(Delta("content", "Let me look."))
    one.view.show(Finish("tool_calls", Usage(), Timings()))
    one.view.show(ToolStarted(call, "built in"))
    one.view.show(ToolResult(call, "built in", "ok", "noon"))
    one.view.show(Delta("content", "It is noon."))
    one.view.show(Finish("stop", Usage(), Timings()))
    one.view.end_reply(completion())
    rows = [row for row in one.rows() if row]
    assert rows[0] == "Let me look." and rows[-1] == "It is noon."
    assert rows[1].startswith("⚙ ") and SHOWN in rows[1]


def test_nothing_foreign_moves_the_cursor():
    """Each way in which a foreign text gets to the screen; all that is drawn stays where it is drawn."""
    one = make_view("y", columns=300, lines=100)
    view = one.view
    view.welcome(make_status(title=EVIL, num_turns=2, context_used=5))
    view.notice(EVIL)
    view.lines([EVIL, EVIL])
    view.table(EVIL, [EVIL, "b"], [[EVIL, "c"]])
    view.markdown(f"# {EVIL}\n`{EVIL}` [{EVIL}](<{EVIL}>) ![{EVIL}](u)\n```{EVIL}\n{EVIL}\n```")
    view.verbatim(EVIL)
    view.error(ValueError(EVIL))
    assert view.ask(EVIL)
    answer(one, *(Delta("content", char) for char in EVIL))
    text = "\n".join(one.rows())
    assert text.count(SHOWN) >= 14
    assert one.emulator.rows()[0].startswith("╭")  # nothing has erased the screen


def test_a_table_without_room_is_told_line_by_line():
    one = make_view(columns=24, lines=30)
    one.view.table("Title", ["name", "size", "used"], [["漢字漢字漢字", "1", "x"], ["b", "2", "y"]])
    assert one.rows()[:2] == ["Title", "name: 漢字漢字漢字"]
    assert [row for row in one.rows() if row.startswith("size")] == ["size: 1", "size: 2"]
    one.view.table("", ["name", "size", "used"], [["c", "", "z"]])
    assert one.rows()[-2:] == ["name: c", "used: z"]
    one.view.table("Empty", ["a"], [])
    assert one.rows()[-1] == "Empty (none)"


def test_the_longest_column_gets_what_the_others_can_spare():
    one = make_view(columns=60, lines=30)
    one.view.table("", ["a", "b"], [["word " * 4, "word " * 30]])
    assert one.rows()[0] == f"╭{'─' * 21}┬{'─' * 36}╮"
    assert sum(row.count("word") for row in one.rows()) == 34


def test_questions_and_choices():
    one = make_view("y", "Yes", "", "n", None, "b", None)
    assert [one.view.ask("Sure?") for _ in range(5)] == [True, True, False, False, False]
    assert [one.view.choose("Which?", ["a"], []) for _ in range(2)] == ["b", None]


def test_a_text_gets_into_the_clipboard_as_base64_and_a_huge_one_does_not():
    one = make_view()
    raw = one.view._screen._answer._raw
    assert one.view.copy("hé")
    assert raw.data.endswith(b"\x1b]52;c;aMOp\x07")
    assert not one.view.copy("x" * 100_000)


@pytest.mark.parametrize("columns", [1, 2, 19, 20, 39])
def test_a_narrow_terminal_is_no_failure(columns):
    one = make_view("y", columns=columns, lines=4)
    one.view.welcome(make_status())
    one.view.table("T", ["a", "b"], [["1", "2"]])
    answer(one, Delta("content", "# 漢字\n\n|a|b|\n|-|-|\n|1|2|\n\n> > > - deep"), verbose=True)
    one.view.close()
