"""`python -m llm_local.cli.egress.watched REPORT MODULE WORD...`: run a module as a program, under watch.

REPORT is the number of an open file, which gets the lines that `watch` writes.
"""

from __future__ import annotations

import os
import runpy
import sys

from llm_local.cli.egress.watch import watch

__all__ = ["main"]


def main(words: list[str]) -> None:
    """Run `words`: report, module, and what the module takes for its command line."""
    report, module, *rest = words
    os.set_inheritable(int(report), False)
    watch(int(report))
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
