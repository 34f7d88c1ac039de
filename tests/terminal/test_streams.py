"""stdout carries the answer as it comes; stderr carries lines for people and never a failure."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time

import pytest

from llm_local.errors import StorageError
from llm_local.terminal.streams import AnswerWriter, Messages
from terminal.fake_streams import FakeRaw


def test_text_passes_unchanged_into_a_pipe() -> None:
    raw = FakeRaw()
    answer = AnswerWriter(raw)
    answer.write("\x1b[31m\r\x00\u202eü")
    answer.end()
    assert raw.data == "\x1b[31m\r\x00\u202eü\n".encode()


def test_bytes_pass_into_a_pipe_and_never_to_a_terminal() -> None:
    raw = FakeRaw()
    AnswerWriter(raw).write_bytes(b"\x93NUMPY\xff\x00\r\n")
    assert raw.data == b"\x93NUMPY\xff\x00\r\n"
    screen = FakeRaw(terminal=True)
    with pytest.raises(StorageError, match="to a terminal"):
        AnswerWriter(screen).write_bytes(b"\x1b[31m")
    assert screen.data == b""


def test_each_piece_is_out_at_once() -> None:
    raw = FakeRaw()
    answer = AnswerWriter(raw)
    for piece, so_far in (("a", "a"), ("", "a"), ("b", "ab")):
        answer.write(piece)
        assert raw.text == so_far


def test_controls_are_shown_on_a_terminal() -> None:
    raw = FakeRaw(terminal=True)
    answer = AnswerWriter(raw)
    answer.write("a\x1b")
    answer.write("]52;c;x\x07\r")
    answer.end()
    assert raw.text == "a\\x1b]52;c;x\\x07\\x0d\n"


@pytest.mark.parametrize(("text", "out"), [("a", "a\n"), ("a\n", "a\n"), ("a\n\n", "a\n\n"), ("", "\n")])
def test_exactly_one_newline_is_added_where_none_is(text: str, out: str) -> None:
    raw = FakeRaw()
    answer = AnswerWriter(raw)
    answer.write(text)
    answer.end()
    assert raw.text == out
    assert answer.started == bool(text)


def test_a_short_write_is_continued() -> None:
    raw = FakeRaw(chunk=3)
    AnswerWriter(raw).write("0123456789ü")
    assert raw.text == "0123456789ü"


def test_lone_surrogates_do_not_break_the_encoding() -> None:
    raw = FakeRaw()
    AnswerWriter(raw).write("a\ud800b")
    assert raw.text == "a\ufffdb"


def test_a_full_device_is_a_storage_error_and_a_gone_reader_a_broken_pipe() -> None:
    full = FakeRaw(room=2, error=OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(StorageError, match="No space left on device"):
        AnswerWriter(full).write("abc")
    with pytest.raises(BrokenPipeError):
        AnswerWriter(FakeRaw(room=0, error=BrokenPipeError(errno.EPIPE, "Broken pipe"))).write("a")


def test_a_non_blocking_pipe_loses_nothing() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "x" * 300_000
    received: list[bytes] = []

    def drain() -> None:
        time.sleep(0.05)  # let the pipe fill first
        while chunk := os.read(reader, 65536):
            received.append(chunk)

    thread = threading.Thread(target=drain)
    thread.start()
    with io.FileIO(writer, "w") as raw:
        AnswerWriter(raw).write(text)
    thread.join(10)
    os.close(reader)
    assert b"".join(received).decode() == text


def test_notes_are_single_harmless_lines() -> None:
    raw = FakeRaw()
    Messages(raw).note("a\nb\x1b[2J")
    assert raw.text == "a b\\x1b[2J\n"


def test_a_block_keeps_its_lines_and_is_harmless_on_a_terminal() -> None:
    plain, terminal = FakeRaw(), FakeRaw(terminal=True)
    Messages(plain).block("a\n\x1b[1m\n")
    Messages(terminal).block("a\n\x1b[1m")
    assert plain.text == "a\n\x1b[1m\n"
    assert terminal.text == "a\n\\x1b[1m\n"


def test_the_status_line_is_erased_with_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    raw = FakeRaw(terminal=True)
    messages = Messages(raw)
    messages.status("50%")
    messages.status("100%")
    messages.note("done")
    messages.status("")
    assert raw.text == "50%\r   \r100%\r    \rdone\n"
    assert "\x1b" not in raw.text


def test_the_status_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for columns, shown in (("10", "012345678"), ("1", "")):
        monkeypatch.setenv("COLUMNS", columns)
        raw = FakeRaw(terminal=True)
        Messages(raw).status("0123456789abc")
        assert raw.text == shown


@pytest.mark.parametrize(("terminal", "term"), [(False, "xterm"), (True, "dumb"), (True, "")])
def test_no_status_line_where_it_cannot_update(
    terminal: bool, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    if not term:
        monkeypatch.delenv("TERM")
    raw = FakeRaw(terminal=terminal)
    Messages(raw).status("50%")
    assert raw.text == ""


def test_a_closed_stderr_is_no_failure() -> None:
    Messages(FakeRaw(room=0, error=OSError(errno.EIO, "gone"))).note("nobody hears")


PRINTS_FROM_A_LIBRARY = """
from llm_local.terminal.streams import AnswerWriter, hold_standard_streams
closed = hold_standard_streams()
answer = AnswerWriter.take_stdout()
print("a library talks", flush=True)
with open({path!r}, "w") as file:
    answer.write("the answer" + str(sorted(closed)))
    answer.end()
"""


def _run(shell_redirection: str, tmp_path) -> tuple[str, str]:
    script = tmp_path / "script.py"
    script.write_text(PRINTS_FROM_A_LIBRARY.format(path=str(tmp_path / "other")))
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" "$1" {shell_redirection}', sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=30,
    )
    return done.stdout, done.stderr


def test_stray_prints_never_reach_stdout(tmp_path) -> None:
    assert _run("", tmp_path) == ("the answer[]\n", "a library talks\n")


def test_closed_streams_never_become_somebody_elses_file(tmp_path) -> None:
    out, err = _run("<&- 2>&-", tmp_path)
    assert out == "the answer[0, 2]\n"
    assert err == ""
    assert (tmp_path / "other").read_text() == ""
    assert _run(">&-", tmp_path)[0] == ""
    assert (tmp_path / "other").read_text() == ""
