"""Locks on files between real processes: one at a time, freed by death, bounded patience, and places without any."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_local.errors import StorageError
from llm_local.kernels import build
from llm_local.loaders.packed_cache import CacheUnusable, PackedCache
from llm_local.locks import LockTimeout, locked, try_lock
from llm_local.store.download import storage_errors

HOLD = """
import sys, time
from pathlib import Path
from llm_local.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""

# Adds one to a number in a file, slowly enough that two at once would lose a step.
COUNT = """
import sys, time
from pathlib import Path
from llm_local.locks import locked
folder = Path(sys.argv[1])
for _ in range(5):
    with locked(folder / "lock"):
        number = int((folder / "number").read_text())
        time.sleep(0.01)
        (folder / "number").write_text(str(number + 1))
"""


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it is told a line, or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_processes_take_turns(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    counters = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(2)]
    assert [counter.wait(60) for counter in counters] == [0, 0]
    assert (tmp_path / "number").read_text() == "10"


def test_who_waits_is_told_and_gets_it_when_the_other_is_done(tmp_path: Path) -> None:
    path, told = tmp_path / "deep" / "lock", []
    with holder(path) as other:

        def on_wait() -> None:
            told.append(1)
            if len(told) == 2:
                assert other.stdin is not None
                other.stdin.write("\n")
                other.stdin.flush()

        with locked(path, on_wait):
            assert len(told) >= 2


def test_a_killed_holder_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as other:
        with open(path, "rb") as file:
            assert not try_lock(file)
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked(path, patience_s=0):
            pass
    assert path.read_bytes() == b""


def test_patience_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path):
        began = time.monotonic()
        with pytest.raises(LockTimeout), locked(path, patience_s=0.15):
            pass
        assert time.monotonic() - began >= 0.15
    assert path.read_bytes() == b""


def test_sharing_locks_keep_only_the_single_one_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with open(path, "rb") as first, open(path, "rb") as second, open(path, "rb") as third:
        assert try_lock(first, shared=True) and try_lock(second, shared=True)
        assert not try_lock(third)
        first.close()
        second.close()
        assert try_lock(third)


def test_an_error_under_the_lock_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(KeyboardInterrupt), locked(path):
        raise KeyboardInterrupt
    with locked(path, patience_s=0):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught, locked(tmp_path / "file" / "lock"):
        pass
    assert str(tmp_path / "file") in str(caught.value.filename)


# --- a file system without locks ---


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems."""

    def refuse(file: object, flags: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No locks available") as caught, locked(tmp_path / "lock"):
        pass
    assert caught.value.filename == str(tmp_path / "lock")


@pytest.mark.usefixtures("no_locks")
def test_without_locks_packed_weights_are_not_kept_and_say_why(tmp_path: Path) -> None:
    cache = PackedCache(tmp_path, 1 << 20)
    assert cache.find("k") is None
    with pytest.raises(CacheUnusable, match="No locks available"), cache.turn("k"):
        pass


@pytest.mark.usefixtures("no_locks")
def test_without_locks_kernels_are_built_for_one_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\nfor last; do :; done\necho made >"$last"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(build, "environment_folder", lambda: tmp_path / "environment")
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "prebuilt")
    library = build.ensure_built()
    assert library.read_text() == "made\n" and not library.is_relative_to(build.cache_folder())


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_store_says_what_is_wrong_and_where(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="No locks available") as caught,
        storage_errors(tmp_path),
        locked(tmp_path / "lock"),
    ):
        pass
    assert str(tmp_path / "lock") in caught.value.message


def test_a_platform_without_the_call_is_a_place_without_locks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(OSError, match="no file locks"), locked(tmp_path / "lock"):
        pass
