"""Importing large libraries while the garbage collector rests."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["first_import"]


@contextmanager
def first_import(module: str) -> Iterator[None]:
    """Import `module` inside; the collector looks at what it brings neither meanwhile nor ever after.

    torch and transformers bring hundreds of thousands of objects that live as long as the process, and walking them
    again and again was a fifth of the CPU time from the command line to the first token. Harmless when repeated: once
    `module` is there, or where the program has switched the collector off, nothing is done.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.collect()  # what is garbage now would else stay for good
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
