"""The prompt out of arguments and pipes, whatever comes through them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_local.errors import InvalidRequest
from llm_local.terminal import piped_input
from llm_local.terminal.piped_input import (
    MAX_INPUT_BYTES,
    compose_prompt,
    decode_argument,
    decode_input,
    read_input,
)


def _never_waits() -> None:
    raise AssertionError("this input must not look like a hang")


@contextmanager
def _pipe_with(data: bytes) -> Iterator[int]:
    reader, writer = os.pipe()

    def fill() -> None:
        try:
            os.write(writer, data) if len(data) < 65536 else _write_all(writer, data)
        except BrokenPipeError:
            pass
        finally:
            os.close(writer)

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield reader
    finally:
        os.close(reader)
        thread.join(10)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@pytest.mark.parametrize("data", [b"", b"no newline", b"x" * 3_000_000, b"\x00\xff"])
def test_a_pipe_is_read_to_its_end(data: bytes) -> None:
    with _pipe_with(data) as descriptor:
        assert read_input(descriptor, on_wait=_never_waits) == data


def test_a_pipe_over_the_limit_is_refused_before_all_of_it_is_read() -> None:
    with _pipe_with(b"x" * (MAX_INPUT_BYTES * 2)) as descriptor, pytest.raises(InvalidRequest) as caught:
        read_input(descriptor, on_wait=_never_waits)
    assert str(MAX_INPUT_BYTES) in caught.value.message and "more" in caught.value.message


def test_a_file_over_the_limit_is_refused_unread_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(InvalidRequest, match="100000000"):
            read_input(descriptor, on_wait=_never_waits)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        os.lseek(descriptor, 100_000_000 - 5, os.SEEK_SET)  # only what is left counts
        assert read_input(descriptor, on_wait=_never_waits) == b"\0" * 5
    finally:
        os.close(descriptor)


def test_the_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piped_input, "MAX_INPUT_BYTES", 1000)
    with _pipe_with(b"x" * 1000) as descriptor:
        assert len(read_input(descriptor, on_wait=_never_waits)) == 1000
    with _pipe_with(b"x" * 1001) as descriptor, pytest.raises(InvalidRequest):
        read_input(descriptor, on_wait=_never_waits)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(InvalidRequest, match="directory"):
            read_input(descriptor, on_wait=_never_waits)
    finally:
        os.close(descriptor)


def test_a_silent_pipe_is_mentioned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piped_input, "_PATIENCE_S", 0.01)
    reader, writer = os.pipe()
    waits = []

    def end_the_wait() -> None:
        waits.append(1)
        os.write(writer, b"late")
        os.close(writer)

    assert read_input(reader, on_wait=end_the_wait) == b"late"
    os.close(reader)
    assert waits == [1]


def test_clean_text_has_no_notice() -> None:
    assert decode_input("Grüße \ufffd\n".encode()) == ("Grüße \ufffd\n", "")
    assert decode_input(b"\xef\xbb\xbfmark") == ("mark", "")


def test_binary_input_is_repaired_with_one_notice() -> None:
    text, notice = decode_input(b"a\xff\x00b\x00")
    assert text == "a\ufffd\0b\0"
    assert "2 NUL characters" in notice and "U+FFFD" in notice and "\n" not in notice
    assert decode_input(b"a\0")[1].startswith("stdin contains 1 NUL character (")


@pytest.mark.parametrize(
    ("argument", "piped", "prompt"),
    [
        ("ask", "", "ask"),
        ("ask", "\n", "ask"),
        (None, "piped\n", "piped"),
        (None, "piped", "piped"),
        (None, "a\r\n", "a"),
        (None, "a\n\n", "a\n"),
        ("ask", "piped\n", "piped\n\nask"),
        ("", "piped", "piped"),
        (None, " \n x", " \n x"),
    ],
)
def test_composition(argument: str | None, piped: str, prompt: str) -> None:
    assert compose_prompt(argument, piped) == prompt


def test_raw_keeps_every_character_of_a_lone_input() -> None:
    assert compose_prompt(None, "a\n", exact=True) == "a\n"
    assert compose_prompt(None, "\n", exact=True) == "\n"
    assert compose_prompt("b", "a\n", exact=True) == "a\n\nb"
    assert compose_prompt(" ", "", exact=True) == " "


@pytest.mark.parametrize(("argument", "piped"), [(None, ""), ("", ""), (None, " \n\t\n"), ("  ", "\n")])
def test_nothing_to_ask(argument: str | None, piped: str) -> None:
    with pytest.raises(InvalidRequest, match="No prompt"):
        compose_prompt(argument, piped)


def test_arguments_are_utf_8_whatever_the_locale() -> None:
    assert decode_argument("Grüße") == "Grüße"
    assert decode_argument("Gr\udcc3\udcbc\udcc3\udc9fe") == "Grüße"  # how an ASCII locale delivers it
    assert decode_argument("a\udcffb") == "a\ufffdb"
    assert decode_argument("a\ud800b") == "a\ufffdb"
