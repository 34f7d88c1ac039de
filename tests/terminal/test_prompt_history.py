"""A history of inputs that several chats write to, and that no disk can make fail."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from llm_local.terminal.prompt_history import MAX_ENTRY_CHARS, PromptHistory


def make(path, may_be_kept=lambda entry: True):
    notices = []
    return PromptHistory(path, notices.append, may_be_kept), notices


def test_two_chats_keep_the_entries_of_both_in_a_file_of_the_owner_alone(tmp_path):
    path = tmp_path / "deep" / "history"
    (one, told), (two, _) = make(path), make(path)
    one.store_string("first\n  with + and #\n\nlines")
    two.store_string("second 漢字")
    one.store_string("third")
    assert list(make(path)[0].load_history_strings()) == [
        "third",
        "second 漢字",
        "first\n  with + and #\n\nlines",
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert told == []


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "history"
    path.write_text("\n# then\n+old\n")
    path.chmod(0o644)
    history, _ = make(path)
    history.store_string("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(history.load_history_strings()) == ["new", "old"]


def test_what_is_long_or_means_nothing_later_is_not_kept(tmp_path):
    path = tmp_path / "history"
    history, _ = make(path, may_be_kept=lambda entry: "secret" not in entry)
    for entry in ("x" * (MAX_ENTRY_CHARS + 1), "a secret", "kept"):
        history.store_string(entry)
    assert list(history.load_history_strings()) == ["kept"]


def test_broken_bytes_and_a_huge_file_are_read_as_far_as_they_go(tmp_path):
    path = tmp_path / "history"
    path.write_bytes(b"\n# x\n+\xff\xfebroken\n" + b"\n# x\n+" + b"y" * 70 + b"\n" * 1 + b"z" * (5 << 20))
    history, told = make(path)
    list(history.load_history_strings())
    history.store_string("last")
    assert next(iter(history.load_history_strings())) == "last" and told == []


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo", "full"])
def test_a_disk_that_refuses_is_told_once_and_the_chat_goes_on(tmp_path, kind):
    path = tmp_path / "history"
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = path.with_name("no-directory")
        path.write_text("")
        path = path / "history"
    history, told = make(path)
    for _ in range(3):
        history.store_string("entry")
    assert len(told) == 1 and str(path) in told[0] and not (tmp_path / "elsewhere").exists()


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path):
    path = tmp_path / "history"
    os.mkfifo(path)
    history, told = make(path)
    loading = threading.Thread(target=lambda: list(history.load_history_strings()), daemon=True)
    loading.start()
    loading.join(10)
    assert not loading.is_alive()
    assert len(told) == 1 and str(path) in told[0]


def test_without_a_path_nothing_is_kept():
    history, told = make(None)
    history.store_string("entry")
    assert list(history.load_history_strings()) == [] and told == []
