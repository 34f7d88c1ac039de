"""A published shape with random weights, as a folder that any runner can load.

Asked through `serving.py`, in a process of its own so that its memory is not counted as ours.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_local.bench.peers.vocabulary import tokenizer_files
from llm_local.loaders.published_shapes import PUBLISHED_SHAPES

__all__ = ["answer"]


def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write weights, configuration and tokenizer of `shape` in `dtype`. `folder` appears when it is complete."""
    folder, shape, dtype = Path(asked["folder"]), asked["shape"], asked["dtype"]
    # Late: it imports torch.
    from llm_local.loaders.random_weights import random_model

    values = PUBLISHED_SHAPES[shape]
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        model, _ = random_model(shape, values, dtype=dtype, device="cpu")
        model.save_pretrained(part)
        for name, text in tokenizer_files(values["vocab_size"]).items():
            (part / name).write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {"ok": True}
