"""MCP servers that misbehave: a clear error within a limit, and no process or thread left behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path

import psutil
import pytest

from llm_local.errors import McpServerError
from llm_local.tools import mcp_process
from llm_local.tools.mcp_client import McpServer, open_server
from llm_local.tools.mcp_connection import Connection
from llm_local.tools.tool import ToolFailure

SERVERS = str(Path(__file__).parent / "mcp_hostile_servers.py")


def hostile(name: str, *more: object) -> list[str]:
    return [sys.executable, SERVERS, name, *map(str, more)]


def call(server: McpServer) -> str:
    (tool,) = server.tools
    return tool.run({})


def is_gone(pid: int) -> bool:
    """No such process, or a dead one that waits for whoever inherited it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(autouse=True)
def nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(mcp_process, "EXIT_GRACE_S", 0.5)
    threads, children = set(threading.enumerate()), set(psutil.Process().children())
    yield
    assert set(threading.enumerate()) - threads == set()
    assert set(psutil.Process().children()) - children == set()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["no-such-program-anywhere", "--x"],
            "The MCP server `no-such-program-anywhere --x` cannot be started: No such file or directory.",
        ),
        (["/"], "The MCP server `/` cannot be started: Permission denied."),
        (["a\0b"], "cannot be started: embedded null byte."),
        (
            hostile("exits_at_once"),
            "exits_at_once` ended before it answered (exit status 4). Its last words: no such database",
        ),
        (["true"], "The MCP server `true` ended before it answered (exit status 0). It said nothing."),
        (hostile("says_nothing"), "did not answer within 2.5 s. Its last words: thinking"),
        (
            hostile("writes_junk"),
            "did not answer within 2.5 s; it writes what is not MCP, such as 'Listening on port 8080!'.",
        ),
        (hostile("floods_with_junk"), "writes to its stdout what is not MCP, such as 'junk'."),
        (hostile("endless_line"), "sent a message of more than 16 MiB."),
        (hostile("wrong_tools"), "ListToolsResult tools.0.inputSchema.type Input should be 'object'"),
        (hostile("pages_without_end"), "does not speak MCP: it lists more than 1000 tools"),
    ],
    ids=lambda part: part[-1] if isinstance(part, list) else "",
)
def test_a_server_that_does_not_start(command: list[str], message: str) -> None:
    began = time.monotonic()
    with (
        pytest.raises(McpServerError) as caught,
        open_server(command, timeout_s=2.5 if "2.5" in message else 60),
    ):
        pass
    assert message in str(caught.value)
    assert time.monotonic() - began < 30


def test_one_whose_loop_has_just_closed_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the end of its loop and the end of its thread there is a moment, which this makes long."""
    run, over, may_end = asyncio.run, threading.Event(), threading.Event()

    def linger(living: Coroutine[None, None, None]) -> None:
        run(living)
        over.set()
        may_end.wait(10)

    monkeypatch.setattr(asyncio, "run", linger)
    connection = Connection(["/"], {})
    with pytest.raises(McpServerError):
        connection.open(10)
    assert over.wait(10)
    threading.Timer(0.1, may_end.set).start()
    connection.close()


def test_a_banner_is_passed_over() -> None:
    with open_server(hostile("greets_first")) as server:
        assert call(server) == "fine"


def test_a_server_without_a_handshake_is_discovered() -> None:
    with open_server(hostile("knows_no_handshake")) as server:
        assert server.name.startswith("python"), "it did not say its name, so its program's"
        assert call(server) == "fine"


def test_a_server_that_dies_in_a_call() -> None:
    with open_server(hostile("dies_in_a_call")) as server:
        with pytest.raises(McpServerError) as caught:
            call(server)
        assert str(caught.value).endswith(
            "ended during the call of act (killed by signal 9). Its last words: goodbye"
        )
        with pytest.raises(McpServerError, match="ended some time ago"):
            call(server)


@pytest.mark.parametrize("name", ["stays_silent_in_a_call", "stops_reading"])
def test_a_server_that_stays_silent_in_a_call(name: str) -> None:
    with open_server(hostile(name), call_timeout_s=0.3) as server:
        for _ in range(2):
            with pytest.raises(ToolFailure, match=r"took longer than 0\.3 s"):
                call(server)


def test_a_server_that_does_not_read_a_large_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_process, "WRITE_LIMIT_S", 0.5)
    with open_server(hostile("stops_reading"), call_timeout_s=20) as server:
        (tool,) = server.tools
        waiting = threading.Thread(target=lambda: pytest.raises(McpServerError, tool.run, {}))
        waiting.start()  # the server sleeps in this call
        time.sleep(0.2)
        with pytest.raises(McpServerError, match=r"ended during the call of act \(killed by signal 9\)"):
            tool.run({"text": "x" * 3_000_000})
        waiting.join()


def test_wrong_results_are_told_to_the_model() -> None:
    with open_server(hostile("wrong_results")) as server, pytest.raises(ToolFailure, match="does not allow"):
        call(server)


def test_a_server_and_its_child_that_will_not_leave_are_killed(tmp_path: Path) -> None:
    noted = tmp_path / "pids"
    with open_server(hostile("will_not_leave", noted)) as server:
        assert call(server) == "fine"
    assert [is_gone(int(pid)) for pid in noted.read_text().split()] == [True, True]


def test_a_child_does_not_outlive_its_server(tmp_path: Path) -> None:
    noted = tmp_path / "pids"
    with open_server(hostile("leaves_a_child", noted)) as server:
        assert call(server) == "fine"
    assert [is_gone(int(pid)) for pid in noted.read_text().split()] == [True, True]


def test_a_server_is_stopped_when_its_start_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C while it starts."""
    from llm_local.tools.mcp_connection import Connection

    def interrupted(self: Connection, limit_s: float) -> None:
        self._limit_s = limit_s
        self._thread.start()
        ends = time.monotonic() + 10
        while self._process is None and time.monotonic() < ends:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), open_server(hostile("says_nothing")):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_that_is_killed_takes_its_servers_with_it(tmp_path: Path, number: signal.Signals) -> None:
    noted = tmp_path / "pids"
    program = (
        "import sys, time\n"
        "from llm_local.tools.mcp_client import open_server\n"
        "with open_server(sys.argv[1:]):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)"
    )
    command = [sys.executable, "-c", program, *hostile("will_not_leave", noted)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
    pids = [int(pid) for pid in noted.read_text().split()]
    ends = time.monotonic() + 30
    while not all(map(is_gone, pids)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert [is_gone(pid) for pid in pids] == [True, True]


def test_stderr_is_kept_bounded_and_handed_on_and_never_reaches_ours(
    capfd: pytest.CaptureFixture[str],
) -> None:
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        raise OSError("nobody is there to be told")

    with open_server(hostile("talks_a_lot"), on_stderr=hear) as server:
        assert call(server) == "fine"
    assert len(heard) > 200
    assert max(map(len, heard)) <= mcp_process.TAIL_CHARS
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["schema_bomb", "small_schema_bomb"])
def test_a_schema_bomb_stays_small(name: str) -> None:
    with open_server(hostile(name)) as server:
        assert len(str(server.tools[0].definition.parameters)) < 20_000
        assert call(server) == "fine"
