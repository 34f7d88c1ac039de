"""What is typed into a rich chat, key by key."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from llm_local.errors import InvalidRequest
from llm_local.terminal.chat_view import Candidate, Choice, PromptContext
from llm_local.terminal.piped_input import MAX_INPUT_BYTES
from llm_local.terminal.rich_input import RichInput

META_ENTER, ENTER, CTRL_C, CTRL_D, CTRL_G, CTRL_R = "\x1b\r", "\r", "\x03", "\x04", "\x07", "\x12"
RIGHT, UP = "\x1b[C", "\x1b[A"
COMMANDS = ("/help", "/history", "/switch")


def complete(line: str) -> list[Candidate]:
    return [Candidate(name, len(line), "what it does") for name in COMMANDS if name.startswith(line)]


@contextlib.contextmanager
def typing(*keys, path=None, enter_submits=False):
    """An input into which `keys` are typed, each when the one before has had its effect."""
    notices = []
    with create_pipe_input() as source:
        said = RichInput(
            history_path=path,
            enter_submits=enter_submits,
            on_notice=notices.append,
            source=source,
            output=DummyOutput(),
        )
        said.notices = notices

        def type_them() -> None:
            for number, one in enumerate(keys):
                if number:
                    time.sleep(0.15)
                source.send_bytes(one.encode("utf-8", "surrogateescape"))

        typist = threading.Thread(target=type_them)
        typist.start()
        yield said
        typist.join()


def read(*keys, initial="", **more):
    with typing(*keys, **more) as said:
        return said.read(PromptContext(complete=complete, initial=initial))


def test_alt_enter_sends_and_enter_begins_a_line():
    assert read("one" + ENTER + "two" + META_ENTER) == "one\ntwo"


def test_enter_sends_where_it_is_set_so_and_alt_enter_begins_a_line():
    assert read("one" + META_ENTER + "two" + ENTER, enter_submits=True) == "one\ntwo"


@pytest.mark.parametrize("enter_submits", [True, False])
def test_three_quotation_marks_hold_lines_together(enter_submits):
    keys = '"""one' + ENTER + 'two"""' + (ENTER if enter_submits else META_ENTER)
    assert read(keys, enter_submits=enter_submits) == "one\ntwo"


def test_a_command_is_sent_by_enter_and_a_text_with_two_slashes_is_none():
    assert read("/help" + ENTER) == "/help"
    assert read("//help" + ENTER + "x" + META_ENTER) == "//help\nx"


def test_tab_writes_the_one_candidate_or_what_all_begin_with():
    assert read("/sw\t" + ENTER) == "/switch"
    assert read("/h\t", "i\t" + ENTER) == "/history"


def test_ctrl_c_clears_what_is_typed_and_then_leaves():
    assert read("gone" + CTRL_C + "kept" + META_ENTER) == "kept"
    with pytest.raises(KeyboardInterrupt):
        read(CTRL_C)
    with pytest.raises(EOFError):
        read(CTRL_D)


def test_a_text_to_begin_with_can_be_changed():
    assert read(" and more" + META_ENTER, initial="begun") == "begun and more"


def test_inputs_before_come_back_by_arrow_by_suggestion_and_by_letters(tmp_path):
    path = tmp_path / "history"
    for text in ("explain transformers", "say hello"):
        read(text + META_ENTER, path=path)
    assert read(UP, META_ENTER, path=path) == "say hello"
    assert read("expl", RIGHT + "!" + META_ENTER, path=path) == "explain transformers!"
    assert read(CTRL_R, "xtrf", ENTER + " again" + META_ENTER, path=path) == "explain transformers! again"
    assert read("kept" + CTRL_R, "say", CTRL_G + META_ENTER, path=path) == "kept"
    assert read("kept" + CTRL_R, "zzz", ENTER + META_ENTER, path=path) == "kept"


def test_text_of_any_bytes_is_valid_and_controls_come_as_they_are():
    assert read("a\udcffb\x1b[200~\x1b[2J\x1b[201~" + META_ENTER) == "a\ufffdb\x1b[2J"


def test_too_much_is_refused_and_the_next_input_is_read():
    mark = "\x1b[200~" + "x" * (MAX_INPUT_BYTES + 1) + "\x1b[201~"
    with typing(mark, META_ENTER, "next" + META_ENTER) as said:
        with pytest.raises(InvalidRequest, match="at most"):
            said.read(PromptContext())
        assert said.read(PromptContext()) == "next"


def test_a_history_that_cannot_be_written_is_told_after_the_input(tmp_path):
    with typing("text" + META_ENTER, path=tmp_path) as said:
        assert said.read(PromptContext()) == "text"
        assert len(said.notices) == 1 and str(tmp_path) in said.notices[0]


def test_a_choice_of_nothing_is_none():
    with typing() as said:
        assert said.choose("title", ["a"], []) is None


def test_what_is_chosen_is_its_value():
    choices = [Choice("one", ("One", "1")), Choice("two", ("Two", "2"), is_current=True)]
    with typing(UP, ENTER) as said:
        assert said.choose("Which?", ["name", "size"], choices) == "one"


def test_the_line_of_keys_says_what_is_set():
    with typing() as one, typing(enter_submits=True) as other:
        assert one.keys_line.startswith("Alt+Enter sends, Enter begins a line")
        assert other.keys_line.startswith("Enter sends, Alt+Enter begins a line")
