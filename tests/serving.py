"""Servers for tests: processes that are on the list of running servers, and gone when the test is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Start", "starting_servers"]

CHILD = Path(__file__).with_name("serving_child.py")
Start = Callable[..., subprocess.Popen[str]]


@contextmanager
def starting_servers() -> Iterator[Start]:
    """Starts servers that are on the list when it returns; none is left behind."""
    children: list[subprocess.Popen[str]] = []

    def begin(*words: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, str(CHILD), *map(str, words)], stdout=subprocess.PIPE, text=True
        )
        children.append(child)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        return child

    try:
        yield begin
    finally:
        for child in children:
            child.kill()
            child.communicate()
