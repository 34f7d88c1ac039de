"""Whatever way out a program tries, it is seen, named and denied; what stays on this machine is let through."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_local.cli.egress.keeper import interfaces, lost_packets, run_watched
from llm_local.cli.egress.proof import Stage, _find_seal, prove
from llm_local.cli.egress.proof import _read as read_stage
from llm_local.cli.egress.watch import is_this_machine

Watched = Callable[[str], Stage]
QUIETLY = "try:\n    {}\nexcept Exception:\n    pass\n"  # as an offender would


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Runs a program under watch, as a module called `offender`."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3] / 'src'}")

    def run(program: str) -> Stage:
        (tmp_path / "offender.py").write_text(program)
        return read_stage("it", run_watched(["offender"], sealed=False))

    return run


@pytest.fixture
def listening() -> Iterator[int]:
    """The port of a server on loopback that takes what comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept_all, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _accept_all(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


WAYS_OUT = {
    "a connection": ("socket.create_connection(('192.0.2.1', 80))", "connect to 192.0.2.1 port 80"),
    "without an exception": ("socket.socket().connect_ex(('192.0.2.1', 80))", "connect to 192.0.2.1 port 80"),
    "IPv6": ("socket.create_connection(('2001:db8::1', 80))", "connect to 2001:db8::1 port 80"),
    "a mapped address": ("socket.create_connection(('::ffff:192.0.2.1', 80))", "::ffff:192.0.2.1 port 80"),
    "a lookup": ("socket.getaddrinfo('hub.example', 443)", "look up hub.example"),
    "a lookup in bytes": ("socket.getaddrinfo(b'hub.example', 443)", "look up hub.example"),
    "an older lookup": ("socket.gethostbyname('hub.example')", "look up hub.example"),
    "one more": ("socket.gethostbyname_ex('hub.example')", "look up hub.example"),
    "a name for an address": ("socket.gethostbyaddr('192.0.2.1')", "look up the name of 192.0.2.1"),
    "another": ("socket.getnameinfo(('192.0.2.1', 80), 0)", "look up the name of 192.0.2.1"),
    "a lookalike of localhost": ("socket.getaddrinfo('localhost.example', 1)", "look up localhost.example"),
    "a datagram": (
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "send to 192.0.2.1 port 53",
    ),
    "a datagram in parts": (
        "socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('192.0.2.1', 53))",
        "send to 192.0.2.1 port 53",
    ),
    "an open door": ("socket.create_server(('0.0.0.0', 0))", "listen at 0.0.0.0 port 0"),
    "any address": ("socket.socket().bind(('', 0))", "listen at  port 0"),
    "urllib": ("urllib.request.urlopen('http://hub.example/x', timeout=5)", "look up hub.example"),
    "an HTTP library": ("httpx2.get('http://hub.example/x')", "look up hub.example"),
    "asyncio": ("asyncio.run(asyncio.open_connection('192.0.2.1', 80))", "connect to 192.0.2.1 port 80"),
    "a thread": (
        "t = threading.Thread(target=socket.create_connection, args=(('192.0.2.1', 80),)); t.start(); t.join()",
        "connect to 192.0.2.1 port 80",
    ),
    "a fork": (
        "os.waitpid(os.fork() or socket.create_connection(('192.0.2.1', 80)), 0)",
        "connect to 192.0.2.1 port 80",
    ),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_way_out_is_seen_named_and_denied(way: str, watched: Watched) -> None:
    statement, shown = WAYS_OUT[way]
    imports = "import asyncio, os, socket, threading, urllib.request, httpx2\n"
    stage = watched(imports + QUIETLY.format(statement))
    assert stage.failure == ""
    assert not stage.is_clean
    assert any(shown in f"{one.action} {one.target}" for one in stage.attempts), stage
    if way not in ("urllib", "an HTTP library", "asyncio", "a thread"):
        assert stage.attempts[0].by == "offender, line 3"


def test_what_is_denied_fails_like_a_network_that_is_down(watched: Watched) -> None:
    stage = watched(
        "import socket, sys\ntry:\n    socket.create_connection(('192.0.2.1', 80))\n"
        "except OSError as error:\n    sys.exit(f'it says {error}')\n"
    )
    assert (
        "it ended with code 1: it says" in stage.failure and "denied while egress is watched" in stage.failure
    )


def test_this_machine_may_be_reached(watched: Watched, listening: int) -> None:
    stage = watched(
        "import socket\n"
        + "".join(
            f"socket.create_connection(('{host}', {listening})).close()\n"
            for host in ("127.0.0.1", "localhost")
        )
        + "socket.getaddrinfo(None, 80)\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "a, b = socket.socketpair()\n"
        "a.sendmsg([b'x'])\n"
    )
    assert stage.is_clean, stage
    assert any(one.target == f"127.0.0.1 port {listening}" for one in stage.local)
    assert all("127.0.0.1" in one.target or "::1" in one.target for one in stage.local)


def test_a_server_for_this_machine_may_take_connections(watched: Watched, listening: int) -> None:
    serve = (
        "import socket\nserver = socket.create_server(('127.0.0.1', {port}))\n"
        "client = socket.create_connection(server.getsockname())\nserver.accept()\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stage = watched(serve.format(port=port))
    assert stage.is_clean and not stage.asked_others, stage
    stage = watched(serve.format(port=0) + f"socket.create_connection(('127.0.0.1', {listening}))\n")
    assert stage.is_clean and stage.asked_others, stage


def test_a_server_that_nobody_saw_bound_counts(watched: Watched) -> None:
    stage = watched("import socket\nserver = socket.socket()\nserver.listen()\n")
    assert [one.action for one in stage.attempts] == ["open"]


def test_a_socket_of_the_file_system_is_told_and_let_through(watched: Watched, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    stage = watched(
        f"import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind({str(path)!r})\n"
        f"s.listen()\nsocket.socket(socket.AF_UNIX).connect({str(path)!r})\n"
    )
    assert stage.is_clean and {one.target for one in stage.local} == {str(path)}


def test_a_socket_for_what_was_not_seen_counts(watched: Watched) -> None:
    stage = watched("import socket\nfor _ in range(3):\n    socket.socket()\n")
    assert [str(one) for one in stage.attempts] == [
        "open a network socket, for what was not seen, by offender, line 3"
    ]


def test_other_programs_are_named(watched: Watched) -> None:
    stage = watched(
        "import os, subprocess\nsubprocess.run(['/bin/true'])\nsubprocess.run('true', shell=True)\nos.system('true')\n"
        "os.posix_spawn('/bin/echo', ['echo'], {})\n"
    )
    assert {"true", "echo"} <= set(stage.programs) and len(stage.programs) >= 3
    assert stage.is_clean


def test_the_report_is_no_programs_to_write_into(watched: Watched) -> None:
    stage = watched(
        "import os, subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', 'import os; [os.write(n, b\"forged\") for n in range(3, 20)]'],"
        " close_fds=False, stderr=subprocess.DEVNULL)\n"
    )
    assert stage.is_clean


def test_a_flood_hides_nothing(watched: Watched) -> None:
    stage = watched(
        "import socket, subprocess, sys\n"
        "for _ in range(2000):\n    sys.audit('os.exec', 'program', [], {})\n"
        + QUIETLY.format("socket.create_connection(('192.0.2.1', 80))")
    )
    assert not stage.is_clean and stage.failure == "it asked for more than can be written down"


@pytest.mark.parametrize("line", ["{}", "[1]", "no", "\\xff", '{"event": '])
def test_a_report_that_somebody_wrote_into_proves_nothing(line: str, watched: Watched) -> None:
    stage = watched(
        f"import os\nfor n in range(3, 1024):\n    try:\n        os.write(n, b'{line}\\n')\n"
        "    except OSError:\n        pass\n"
    )
    assert stage.failure == "something wrote into the report of the watch" and not stage.is_clean


def test_how_it_ended_is_told(watched: Watched) -> None:
    assert "it ended with code 3" in watched("import sys; sys.exit(3)").failure
    assert "code -9" in watched("import os; os.kill(os.getpid(), 9)").failure
    assert "ZeroDivisionError" in watched("1 / 0").failure


def test_a_program_that_is_not_there_proves_nothing() -> None:
    stage = read_stage("it", run_watched(["no_such_module"], sealed=False))
    assert not stage.is_clean and "no_such_module" in stage.failure
    assert read_stage("it", {"asked": [], "code": 0, "said": "", "lost": 0}).failure.startswith(
        "it could not be"
    )


@pytest.mark.parametrize(
    ("host", "this"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), (b"LOCALHOST", True),
        ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("", False), ("128.0.0.1", False), ("::2", False),
        ("localhost.localdomain.example", False), ("127.0.0.1.example", False), ("10.0.0.1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_this_machine(host: str | bytes, this: bool) -> None:
    assert is_this_machine(host) is this


# --- where the system keeps everything in ---

SEALED = _find_seal()[1] == ""
only_sealed = pytest.mark.skipif(not SEALED, reason="this system allows no network namespace")

NATIVE = """
import ctypes, struct
libc = ctypes.CDLL(None)
address = struct.pack("=HHI8x", 2, 80 << 8, int.from_bytes(bytes([192, 0, 2, 1]), "little"))
libc.connect(libc.socket(2, 1, 0), address, len(address))
"""
OTHER = """
import subprocess, sys
program = "import socket; socket.create_connection(('192.0.2.1', 80))"
subprocess.run([sys.executable, "-c", program], capture_output=True)
"""
BY_NAME = "import socket\n" + QUIETLY.format("socket.socket().connect(('hub.example', 80))")


@only_sealed
def test_a_namespace_counts_what_python_does_not_announce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    programs = {"native": NATIVE, "other": OTHER, "by_name": BY_NAME, "quiet": "import socket"}
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
    proof = prove({name: [name] for name in programs})
    assert proof.is_sealed and proof.watch_works and not proof.holds
    native, other, by_name, quiet = proof.stages
    assert (native.unseen, native.attempts) == (1, ())
    assert (other.unseen, len(other.programs)) == (1, 1)
    assert by_name.unseen and by_name.attempts[0].action == "open"
    assert quiet.is_clean and quiet.unseen == 0


def test_without_a_namespace_the_watch_alone_is_proven_to_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # the attempt on purpose does not take it
    (tmp_path / "quiet.py").write_text("import socket")
    proof = prove({"quiet": ["quiet"]}, sealed=False)
    assert proof.holds and not proof.is_sealed
    assert proof.stages[0].unseen is None
    assert [str(one) for one in proof.control.attempts] == [
        f"connect to 192.0.2.1 port 80, by {proof.control.attempts[0].by}"
    ]
    assert proof.control.attempts[0].by.startswith("llm_local.store.hub")


def test_the_systems_own_counts_are_read(tmp_path: Path) -> None:
    (tmp_path / "snmp").write_text(
        "Ip: Forwarding OutNoRoutes ReasmTimeout\nIp: 1 7 0\nTcp: OutNoRoutes\nTcp: 99\n"
    )
    (tmp_path / "dev").write_text("Inter-| Receive\n face |bytes\n    lo: 0 0\neth0: 1 2\n")
    assert lost_packets(tmp_path) == 7
    (tmp_path / "snmp6").write_text("Ip6InReceives 4\nIp6OutNoRoutes 5\n")
    assert lost_packets(tmp_path) == 12
    assert interfaces(tmp_path) == ["lo", "eth0"]


def test_namespaces_that_are_none_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {"interfaces": ["lo", "eth0"], "results": []}
    clean = {"code": 0, "asked": [{"event": "watching"}], "said": "", "lost": 0}
    told["results"] = [clean]
    monkeypatch.setattr("llm_local.cli.egress.proof._find_seal", lambda: (("unshare",), ""))
    monkeypatch.setattr("llm_local.cli.egress.proof._keep", lambda seal, commands: told)
    proof = prove({})
    assert not proof.is_sealed and "eth0" in proof.why_not_sealed
    assert not proof.watch_works and not proof.holds  # nothing was seen of the attempt on purpose
