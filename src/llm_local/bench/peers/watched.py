"""A server of somebody else as a program that never outlives whoever started it.

`python watched.py MODULE ARGUMENTS...` runs the module as `python -m` would, and ends when its stdin does: the pipe of
a benchmark that was killed closes by itself. Standard library only, so that it takes nothing from what is measured.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

__all__ = ["run"]

_GRACE_S = 3.0


def run(module: str) -> None:
    """Run `module` as the main program, with the arguments that are left."""
    threading.Thread(target=_watch, daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _watch() -> None:
    # Not sys.stdin: its lock would be held when the interpreter ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    del sys.argv[0]
    run(sys.argv[0])
