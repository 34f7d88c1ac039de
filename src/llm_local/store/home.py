"""Where llm-local keeps what it can make again: packed weights, compiled kernels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cache_home"]


def cache_home(environ: Mapping[str, str] | None = None) -> Path:
    """`LLM_LOCAL_HOME`, else `llm-local` among the user's caches; read anew at every call, and not created."""
    env = os.environ if environ is None else environ
    if env.get("LLM_LOCAL_HOME"):
        return Path(env["LLM_LOCAL_HOME"]).expanduser()
    return Path(env.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llm-local"
