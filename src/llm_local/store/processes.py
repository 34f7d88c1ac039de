"""Processes by number and start: a number alone is given out again, so nobody is signaled by it alone."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

__all__ = ["process_start", "terminate"]

_PROC = Path("/proc")
_START = 19  # of the words after the command's name; proc(5) counts it as field 22


def process_start(pid: int) -> str | None:
    """When a process began, in words that only this boot of this machine understands; None where there is none.

    One that has ended and waits for its parent is none.
    """
    if sys.platform == "linux":
        try:
            # The command's name may hold spaces and parentheses of its own.
            words = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return None
        return None if words[0] in ("Z", "X") else f"{boot} {words[_START]}"
    # Late: only systems without /proc need it.
    import psutil  # type: ignore[import-untyped]

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
    except psutil.Error:
        return None


def terminate(pid: int, start: str) -> None:
    """Send SIGTERM to the process `pid` that began at `start`, and to no other that got its number.

    Raises:
        ProcessLookupError: there is no such process, or not any more.
        PermissionError: it belongs to somebody else.
    """
    if sys.platform != "linux":
        _check(pid, start)
        os.kill(pid, signal.SIGTERM)
        return
    # What this handle stands for stays the same process, also when its number is given out again.
    handle = os.pidfd_open(pid)
    try:
        _check(pid, start)
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    finally:
        os.close(handle)


def _check(pid: int, start: str) -> None:
    if process_start(pid) != start:
        raise ProcessLookupError(pid)
