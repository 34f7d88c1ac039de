"""Importing large libraries: while the garbage collector rests, and out of sight of who asked for them."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["first_import"]


@contextmanager
def first_import(module: str) -> Iterator[None]:
    """Import `module` inside; the collector looks at what it brings neither meanwhile nor ever after.

    torch and transformers bring hundreds of thousands of objects that live as long as the process, and walking them
    again and again was a fifth of the CPU time from the command line to the first token. Harmless when repeated: once
    `module` is there, or where the program has switched the collector off, nothing is done.

    The import runs in a thread of its own, for the sake of its stack: libraries keep errors of optional parts that are
    missing, an error keeps the stack it came from, and every function of that stack keeps its variables, among them the
    model that it went on to load.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.collect()  # what is garbage now would else stay for good
    gc.disable()
    try:
        _import_apart(module)
        yield
    finally:
        gc.freeze()
        gc.enable()


def _import_apart(module: str) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            importlib.import_module(module)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name=f"import {module}", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
