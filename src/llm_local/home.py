"""Where llm-local keeps what it can make again (packed weights, compiled kernels), and what it cannot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["cache_home", "data_home", "state_home"]


def cache_home(environ: Mapping[str, str] | None = None) -> Path:
    """`LLM_LOCAL_HOME`, else `llm-local` among the user's caches; read anew at every call, and not created."""
    env = os.environ if environ is None else environ
    if env.get("LLM_LOCAL_HOME"):
        return Path(env["LLM_LOCAL_HOME"]).expanduser()
    return Path(env.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llm-local"


def data_home(environ: Mapping[str, str] | None = None) -> Path:
    """The same for what people made, such as names they gave: `LLM_LOCAL_HOME`, else among the user's data."""
    env = os.environ if environ is None else environ
    if env.get("LLM_LOCAL_HOME"):
        return Path(env["LLM_LOCAL_HOME"]).expanduser()
    return Path(env.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "llm-local"


def state_home(environ: Mapping[str, str] | None = None) -> Path:
    """The same for what is true just now, such as which servers run: `LLM_LOCAL_HOME`, else among the user's state."""
    env = os.environ if environ is None else environ
    if env.get("LLM_LOCAL_HOME"):
        return Path(env["LLM_LOCAL_HOME"]).expanduser()
    return Path(env.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "llm-local"
