"""Saving a run so that it can go on after an interruption."""

import os
from pathlib import Path
from typing import Any

import torch

FILE = "checkpoint.pt"


def save_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Write the state beside its place and move it there, so that a crash leaves the old checkpoint whole."""
    partial = folder / f"{FILE}.partial"
    torch.save(state, partial)
    os.replace(partial, folder / FILE)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last state of a run, or None where there is none."""
    path = folder / FILE
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state
