"""Runs programs one after the other under watch, and says what each asked of the network.

    python -m llm_local.cli.egress.keeper [--sealed]      commands in (JSON, stdin), results out (JSON, stdout)

It is a process of its own because with --sealed it lives in a network namespace without any network: there the
system itself counts what finds no way out, whoever asked, native code and other programs included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

__all__ = ["interfaces", "lost_packets", "main", "run_watched"]

_TIME_LIMIT_S: Final = 600
_LAST_WORDS: Final = 300
_PROC: Final = Path("/proc/self/net")


def main(words: list[str]) -> None:
    """Read the commands, run them, print what happened."""
    sealed = "--sealed" in words
    if sealed:
        _raise_loopback()
    commands = json.load(sys.stdin)
    told: dict[str, Any] = {"interfaces": interfaces() if sealed else None}
    told["results"] = [run_watched(command, sealed=sealed) for command in commands]
    json.dump(told, sys.stdout)


def run_watched(command: list[str], *, sealed: bool) -> dict[str, Any]:
    """Run one command, a module and its words; what it asked, how it ended, and what it said last."""
    before = lost_packets() if sealed else 0
    with tempfile.TemporaryFile("a+b") as report, tempfile.TemporaryFile() as said:
        number = report.fileno()
        process = subprocess.Popen(  # noqa: S603  (our own modules under our own Python)
            [sys.executable, "-P", "-m", "llm_local.cli.egress.watched", str(number), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=(number,),
        )
        try:
            code = process.wait(_TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        report.seek(0)
        said.seek(0)
        return {
            "code": code,
            "asked": [_read(line) for line in report],
            "said": said.read().decode(errors="replace").strip().rpartition("\n")[2][-_LAST_WORDS:],
            "lost": lost_packets() - before if sealed else None,
        }


def _read(line: bytes) -> dict[str, Any]:
    """A line of the report; one that the watch did not write like this is damage, and no reason to look away."""
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    return said if isinstance(said, dict) and "event" in said else {"event": "damaged"}


def lost_packets(folder: Path = _PROC) -> int:
    """What the system could not send from this namespace because no way leads there, so far."""
    lines = (folder / "snmp").read_text().splitlines()
    header, values = (line.split()[1:] for line in lines if line.startswith("Ip:"))
    try:
        newer = dict(line.split() for line in (folder / "snmp6").read_text().splitlines())
    except FileNotFoundError:  # no IPv6 here
        newer = {}
    older = dict(zip(header, values, strict=True))
    return int(older["OutNoRoutes"]) + int(newer.get("Ip6OutNoRoutes", 0))


def interfaces(folder: Path = _PROC) -> list[str]:
    """The network interfaces of this namespace."""
    lines = (folder / "dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


def _raise_loopback() -> None:
    """A new namespace has loopback, but not switched on. Where there is no tool for it, loopback counts as outside."""
    tool = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tool is not None:
        subprocess.run([tool, "link", "set", "lo", "up"], check=False, capture_output=True)  # noqa: S603


if __name__ == "__main__":
    main(sys.argv[1:])
