"""Files that people name: whole or not at all, never over anything unasked, never through a link."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_local.conversations import exports
from llm_local.conversations.exports import read_file, write_file
from llm_local.errors import InvalidRequest, StorageError


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    """No test leaves a file that is half written."""
    yield
    assert not list(tmp_path.glob(".*.new"))


def test_a_new_file_is_private_and_as_it_was_given(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_file(tmp_path / "x", "a\r\n世界\0")
    finally:
        os.umask(before)
    assert (tmp_path / "x").read_bytes() == "a\r\n世界\0".encode()
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    asked = []
    for answer in (False, True):
        assert path.read_text() == "old"

        def ask(answer: bool = answer) -> bool:
            asked.append(answer)
            return answer

        if answer:
            write_file(path, "new", may_overwrite=ask)
        else:
            with pytest.raises(InvalidRequest, match="is there already"):
                write_file(path, "new", may_overwrite=ask)
    assert path.read_text() == "new"
    assert asked == [False, True]
    write_file(tmp_path / "y", "new", may_overwrite=lambda: pytest.fail("nothing is there"))


@pytest.mark.parametrize("target", ["victim", "nowhere", "."])
def test_links_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(InvalidRequest, match="is a link"):
        write_file(tmp_path / "link", "x", may_overwrite=lambda: True)
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "no plain file"), (".", "a folder")):
        with pytest.raises(InvalidRequest, match=said):
            write_file(tmp_path / name, "x", may_overwrite=lambda: True)
    with pytest.raises(InvalidRequest, match="not a file"):
        read_file(tmp_path / "pipe", 10)
    with pytest.raises(InvalidRequest, match="folder|not a file"):
        read_file(tmp_path, 10)
    for attempt in (lambda: write_file(tmp_path / "a\0b", "x"), lambda: read_file(tmp_path / "a\0b", 10)):
        with pytest.raises(InvalidRequest, match="cannot be the name"):
            attempt()


def test_refusals_of_the_disk_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "x", tmp_path / ("x" * 300), Path("/proc/nothing")):
        with pytest.raises(StorageError, match="Cannot write"):
            write_file(path, "x")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            write_file(path, "new" * 1000, may_overwrite=lambda: True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text() == "old"


def test_a_file_that_comes_while_we_write_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    real = os.fsync

    def fsync(handle: int) -> None:
        path.write_text("theirs")
        real(handle)

    monkeypatch.setattr(exports.os, "fsync", fsync)
    with pytest.raises(InvalidRequest, match="is there already"):
        write_file(path, "ours")
    assert path.read_text() == "theirs"


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_file(tmp_path / "x", 5) == b"12345"
    with pytest.raises(InvalidRequest, match="too large"):
        read_file(tmp_path / "x", 4)
    with pytest.raises(InvalidRequest, match="no file"):
        read_file(tmp_path / "y", 4)


def test_a_folder_that_is_refused_is_not_held_open(tmp_path: Path) -> None:
    def next_descriptor() -> int:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        os.close(descriptor)
        return descriptor

    before = next_descriptor()
    with pytest.raises(InvalidRequest, match="folder"):
        read_file(tmp_path, 10)
    assert next_descriptor() == before
