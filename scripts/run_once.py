#!/usr/bin/env python3
"""Ask a language model on this machine once: `./run.sh scripts/run_once.py "Hello"`. See docs/run_once.md."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

if find_spec("llm_local") is None:  # not installed: run from the checkout this script lies in
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src"))

from llm_local.cli.run import make_parser
from llm_local.cli.run import run_script as main
from llm_local.terminal.exit_codes import leave

__all__ = ["main", "make_parser"]

if __name__ == "__main__":
    leave(main(sys.argv[1:]))
