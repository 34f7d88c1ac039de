"""Ends the process group of a tool server when the program that started it is gone, however it went.

It runs as a process of its own, `python mcp_watchdog.py GROUP`, and imports nothing of llm-local. Its stdin is a pipe
from the program: one byte says that all is well, and its end without one that the program was killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Final

__all__ = ["watch"]

GRACE_S: Final = 2.0  # for a server that leaves when its own stdin ends, and again after SIGTERM
_POLL_S: Final = 0.05


def watch(group: int) -> None:
    """Wait for the program; end the group where it left without a word."""
    if os.read(0, 1):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        ends = time.monotonic() + GRACE_S
        while time.monotonic() < ends:
            if not _signal(group, 0):
                return
            time.sleep(_POLL_S)
        _signal(group, number)


def _signal(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    watch(int(sys.argv[1]))
