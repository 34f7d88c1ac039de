"""Which servers run: said by themselves, true also when they are killed, and never about a foreign process."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from llm_local.store import processes, servers
from llm_local.store.processes import process_start, terminate
from llm_local.store.servers import (
    Registration,
    ask_to_stop,
    running_servers,
    servers_folder,
    wait_until_gone,
)
from serving import Start, starting_servers


@pytest.fixture
def start() -> Iterator[Start]:
    with starting_servers() as begin:
        yield begin


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems."""

    def refuse(file: object, *, shared: bool = False) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(servers, "try_lock", refuse)


def files() -> list[str]:
    return sorted(path.name for path in servers_folder().iterdir())


def test_a_server_is_on_the_list_while_it_runs() -> None:
    assert running_servers() == []
    with Registration("127.0.0.1", 8000, model="starter", memory_bytes=5, keep_alive_until=9.5) as entry:
        assert running_servers() == [entry.server]
        assert entry.server.is_visible and entry.server.pid == os.getpid()
        assert entry.server.keep_alive_until == 9.5
        assert abs(entry.server.started - time.time()) < 60
    assert running_servers() == [] == files()


def test_what_it_says_changes_whole() -> None:
    with Registration("::1", 8000) as entry:
        began = entry.server.started
        for count in range(5):
            entry.update(model=f"org/{count}", memory_bytes=count)
            (found,) = running_servers()
            assert (found.model, found.memory_bytes, found.started) == (f"org/{count}", count, began)
        entry.update(model=None)
        assert running_servers()[0].model is None
        assert len(files()) == 1


def test_only_the_user_can_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    servers_folder().mkdir(parents=True, mode=0o777)
    servers_folder().chmod(0o777)  # an older one, made by somebody careless
    before = os.umask(0)
    try:
        with Registration("127.0.0.1", 8000):
            assert stat.S_IMODE(servers_folder().stat().st_mode) == 0o700
            (file,) = servers_folder().iterdir()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_several_processes_are_listed_by_port(start: Start) -> None:
    children = {port: start(port) for port in (8002, 8001)}
    found = running_servers()
    assert [(one.port, one.pid) for one in found] == [(port, children[port].pid) for port in (8001, 8002)]
    assert all(one.is_visible and one.model == "org/model" for one in found)


def test_kill_9_leaves_nothing_that_is_believed(start: Start) -> None:
    for port in (8001, 8002, 8003):
        child = start(port)
        (found,) = running_servers()
        child.kill()
        child.wait()
        assert len(files()) == 1  # it could not tidy up
        assert running_servers() == []
        assert files() == []
        with pytest.raises(ProcessLookupError):
            ask_to_stop(found)


def test_a_server_that_is_asked_drains_and_goes(start: Start) -> None:
    child = start(8001, 0.5)
    (found,) = running_servers()
    ask_to_stop(found)
    assert wait_until_gone(found, 0) is False
    assert running_servers() == [found]
    assert wait_until_gone(found, 30)
    assert child.wait(30) == 0
    assert files() == []


def test_asked_twice_it_ends_at_once(start: Start) -> None:
    child = start(8001, 60)
    (found,) = running_servers()
    ask_to_stop(found)
    assert not wait_until_gone(found, 0.2)
    ask_to_stop(found)
    assert wait_until_gone(found, 30)
    assert child.wait(30) == 0


def test_a_number_that_another_process_got_is_not_signaled(start: Start) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with Registration("127.0.0.1", 8000) as entry:
            _rewrite(entry, pid=bystander.pid)
            (found,) = running_servers()  # the lock is held, so a server runs
            assert found.pid == bystander.pid and not found.is_visible
            with pytest.raises(ProcessLookupError):
                ask_to_stop(found)
        with pytest.raises(ProcessLookupError):
            terminate(bystander.pid, "another start")
        assert bystander.poll() is None
    finally:
        bystander.communicate(b"\n", timeout=30)
    assert bystander.returncode == 0


@pytest.mark.parametrize("pid", [0, -1, 1, True, "7", None])
def test_a_forged_number_is_no_server(pid: object) -> None:
    with Registration("127.0.0.1", 8000) as entry:
        _rewrite(entry, pid=pid)
        assert running_servers() == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"{}", b'{"pid": 1}', b"[" * 60_000, b"0" * 100_000]
)
def test_garbage_is_no_server_and_goes(content: bytes) -> None:
    servers_folder().mkdir(parents=True)
    (servers_folder() / "8000-77.json").write_bytes(content)
    with Registration("127.0.0.1", 8001) as entry:
        assert running_servers() == [entry.server]
        assert len(files()) == 1


def test_what_is_no_file_does_no_harm(tmp_path: Path) -> None:
    servers_folder().mkdir(parents=True)
    (tmp_path / "precious").write_text("keep")
    (servers_folder() / "1-2.json").symlink_to(tmp_path / "precious")
    (servers_folder() / "3-4.json").mkdir()
    os.mkfifo(servers_folder() / "5-6.json")
    assert running_servers() == []
    assert (tmp_path / "precious").read_text() == "keep"


def test_what_a_killed_write_left_is_swept() -> None:
    servers_folder().mkdir(parents=True)
    (servers_folder() / ".half").write_text("{")
    assert running_servers() == []
    assert files() == []


def test_a_file_swept_before_it_was_locked_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, swept = servers.try_lock, []

    def swept_once(file: int, *, shared: bool = False) -> bool:
        if not shared and not swept:
            swept.extend(path.unlink() for path in servers_folder().iterdir())
        return real(file, shared=shared)

    monkeypatch.setattr(servers, "try_lock", swept_once)
    with Registration("127.0.0.1", 8000) as entry:
        assert swept and running_servers() == [entry.server]


def test_without_locks_the_process_decides(no_locks: None, start: Start) -> None:
    child = start(8001)
    (found,) = running_servers()
    assert found.pid == child.pid
    child.kill()
    child.wait()
    assert running_servers() == [] == files()


def test_no_home_is_no_server() -> None:
    assert not servers_folder().exists()
    assert running_servers() == []
    assert not servers_folder().exists()


def test_a_disk_that_refuses_leaves_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with Registration("127.0.0.1", 8000, model="old") as entry:

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", refuse)
            with pytest.raises(OSError, match="No space"):
                entry.update(model="new")
        assert [one.model for one in running_servers()] == ["old"]
        assert len(files()) == 1


# --- processes ---


def test_a_process_has_one_start() -> None:
    own = process_start(os.getpid())
    assert own and own == process_start(os.getpid())
    time.sleep(0.05)  # starts are told apart by hundredths of a second
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert process_start(child.pid) not in (None, own)


def test_a_process_that_ended_has_none() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    deadline = time.monotonic() + 30
    while process_start(child.pid) is not None and time.monotonic() < deadline:  # not reaped: a zombie
        time.sleep(0.01)
    assert process_start(child.pid) is None
    child.communicate()
    assert process_start(child.pid) is None


def test_a_name_with_parentheses_does_not_shift_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = ["S", *("0" for _ in range(18)), "4711", "0"]
    for pid, name in ((7, "plain"), (8, "a) Z 1 (b")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}")
    boot = tmp_path / "sys" / "kernel" / "random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("this-boot\n")
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert process_start(7) == process_start(8) == "this-boot 4711"


def test_other_systems_are_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert psutil.pid_exists(os.getpid())  # imported while the platform is the real one
    monkeypatch.setattr(sys, "platform", "darwin")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(child.pid)
    assert start is not None
    with pytest.raises(ProcessLookupError):
        terminate(child.pid, "another")
    terminate(child.pid, start)
    assert child.wait(30) == -15
    child.communicate()
    assert process_start(child.pid) is None


def _rewrite(entry: Registration, **changes: object) -> None:
    """Change what a registered server's file says, in place, under its lock."""
    (file,) = servers_folder().iterdir()
    content = json.loads(file.read_bytes())
    assert content["port"] == entry.server.port
    file.write_text(json.dumps({**content, **changes}))
